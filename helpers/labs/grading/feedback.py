"""One learner's feedback as a web page in which nothing of theirs can run.

The page holds their answers, how those ran, and the score and message of each question:
no test, no mark scheme. All text is escaped, outputs are text, and the page forbids
scripts and connections besides.
"""

from html import escape

STYLE = """
body { font: 16px/1.5 system-ui, sans-serif; max-width: 50rem; margin: 2rem auto;
  padding: 0 1rem; color: #222; }
pre { background: #f4f4f4; padding: .75rem; white-space: pre-wrap;
  overflow-wrap: anywhere; }
table { border-collapse: collapse; width: 100%; }
th, td { text-align: left; vertical-align: top; padding: .4rem .6rem;
  border-bottom: 1px solid #ccc; }
td.score { white-space: nowrap; }
"""
POLICY = "default-src 'none'; style-src 'unsafe-inline'"


def page(lab: str, result: dict) -> str:
    """The page for one result of a `Gradebook`."""
    title = f"{lab}: {result['learner']}"
    parts = [
        "<!doctype html>",
        '<html lang="en"><head><meta charset="utf-8">',
        f'<meta http-equiv="Content-Security-Policy" content="{POLICY}">',
        '<meta name="viewport" content="width=device-width">',
        f"<title>{escape(title)}</title><style>{STYLE}</style></head><body>",
        f"<h1>{escape(title)}</h1>",
        *_questions(result),
    ]
    if result["notes"]:
        parts.append("<h2>Notes</h2><ul>")
        parts += [f"<li>{escape(note)}</li>" for note in result["notes"]]
        parts.append("</ul>")
    answers = result.get("answers", {})
    if answers:
        parts.append("<h2>Your answers</h2>")
    for name, answer in answers.items():
        parts.append(f"<h3>{escape(name)}</h3>")
        parts.append(_pre(answer["source"] or "(missing)"))
        if answer["printed"]:
            parts.append("<p>It printed:</p>" + _pre(answer["printed"]))
        if answer["error"]:
            parts.append(
                "<p>It ended in an error:</p>" + _pre(answer["error"], "error")
            )
    return "\n".join([*parts, "</body></html>", ""])


def _questions(result: dict) -> list[str]:
    questions = result["questions"]
    known = sum(q["score"] or 0 for q in questions.values())
    most = sum(q["points"] for q in questions.values())
    waiting = sum(q["points"] for q in questions.values() if q["score"] is None)
    still = f", and {waiting:g} still to be marked" if waiting else ""
    rows = [f"<p><strong>{known:g} of {most:g} points</strong>{still}.</p>"]
    rows.append("<table><tr><th>Question</th><th>Points</th><th>What we saw</th></tr>")
    for name, question in questions.items():
        score, points = question["score"], question["points"]
        if score is None:
            shown, said = f"– of {points:g}", "to be marked by hand"
        else:
            full = "right" if score == points else ""
            shown, said = f"{score:g} of {points:g}", question["message"] or full
        rows.append(
            f"<tr><td>{escape(question['title'])}<br><small>{escape(name)}</small></td>"
            f'<td class="score">{shown}</td><td>{escape(said)}</td></tr>'
        )
    return [*rows, "</table>"]


def _pre(text: str, kind: str = "") -> str:
    return (
        f'<pre class="{kind}">{escape(text)}</pre>'
        if kind
        else f"<pre>{escape(text)}</pre>"
    )
