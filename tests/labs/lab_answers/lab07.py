"""Answers to lab 07; recipes that train are left to the lab itself."""

from . import Right, Wrong


def recipe(name: str, body: str, says: str, check: str = "q1_valid") -> Wrong:
    return Wrong(
        name, "q1_student", f"def make_student(challenge):\n{body}", check, says
    )


def formula(name: str, line: str, says: str, check: str = "q2_within") -> Wrong:
    code = (
        f"def score(student_right, teacher_right, used, limits):\n{START}    {line}\n"
    )
    return Wrong(name, "q2_score", code, check, says)


START = """\
    s, t = np.asarray(student_right), np.asarray(teacher_right)
    kept = s.mean() / t.mean()
    factors = [min(1, limits[n] / max(used[n], 1e-9)) for n in limits]
"""

# Cells of the master that need not train for what is tested here.
QUICK = {
    "q1_student": "def make_student(challenge):\n    return challenge.base",
    "q1_score": "",
    "q1_tasks": "",
    "board": "",
}

WRONG = [
    recipe("the teacher itself", "    return challenge.teacher", "is this the teacher"),
    recipe("nothing returned", "    challenge.prompts(5)", "the `return` missing"),
    recipe(
        "a bare model", "    return challenge.base.model", "returned a LlamaForCausalLM"
    ),
    recipe(
        "the untrained base",
        "    return challenge.base",
        "It answers as the student base does",
        "q1_score",
    ),
    recipe(
        "too many answers",
        "    return challenge.ask(challenge.prompts(301), samples=2)",
        "602 answers of the teacher are wanted, and 600 of 600 are left",
    ),
    recipe(
        "too many steps",
        "    rows = [e.row() for e in challenge.prompts(5)]\n"
        "    return challenge.teach(rows, steps=301)",
        "9,632 rows read in training",
    ),
    recipe(
        "gold answers",
        "    rows = [e.row() for e in challenge.prompts(5)]\n"
        "    return challenge.teach(rows, steps=300)",
        "row 0 holds no answer of the teacher",
    ),
    recipe(
        "twice the rows in a step",
        "    rows = [e.row() for e in challenge.prompts(5)]\n"
        "    return challenge.teach(rows, steps=300, accumulation=2)",
        "19,200 rows read in training",
    ),
    recipe(
        "an error of its own", "    return challenge.prompt(5)", "raised AttributeError"
    ),
    formula("a share", "return kept * np.prod(factors)", "multiply by 100"),
    formula("upside down", "return 100 / kept * np.prod(factors)", "student / teacher"),
    formula(
        "accuracy", "return 100 * s.mean() * np.prod(factors)", "divides it by the"
    ),
    formula(
        "agreement", "return 100 * (s == t).mean() * np.prod(factors)", "both agree"
    ),
    formula(
        "where the teacher is right",
        "return 100 * s[t].mean() * np.prod(factors)",
        "only questions that the teacher got right",
    ),
    formula(
        "thrift rewarded",
        "return 100 * kept * np.prod([limits[n] / max(used[n], 1e-9) for n in limits])",
        "using less than a limit is rewarded",
    ),
    formula(
        "nothing is divided by nothing",
        "return 100 * kept * np.prod([min(1, limits[n] / used[n]) for n in limits])",
        "raised ZeroDivisionError",
    ),
    formula("no factors", "return 100 * kept", "must lose points", "q2_over"),
    formula(
        "out of the race",
        "return 100 * kept * (min(factors) == 1)",
        "lowers it in proportion",
        "q2_over",
    ),
    formula(
        "the worst only",
        "return 100 * kept * min(factors)",
        "only the worst factor counts",
        "q2_over",
    ),
    formula(
        "factors upside down",
        "return 100 * kept * np.prod([max(1, used[n] / limits[n]) for n in limits])",
        "upside down: over a limit",
        "q2_over",
    ),
]

RIGHT = [
    Right(
        "in one expression",
        "q2_score",
        """\
def score(student_right, teacher_right, used, limits):
    factors = [limits[n] / max(used[n], limits[n]) for n in limits]
    return 100 * np.mean(student_right) / np.mean(teacher_right) * np.prod(factors)
""",
    ),
    Right(
        "counting in loops",
        "q2_score",
        """\
def score(student_right, teacher_right, used, limits):
    above = sum(1 for right in student_right if right)
    below = sum(1 for right in teacher_right if right)
    points = 100 * above / below
    for name in used:
        points = points * limits[name] / max(limits[name], used[name])
    return float(points)
""",
    ),
    Right(
        "by the helpers",
        "q2_score",
        """\
def score(student_right, teacher_right, used, limits):
    kept = evaluate.retention(student_right, teacher_right).value
    over = [used[n] / limits[n] for n in limits if used[n] > limits[n]]
    return 100 * kept / np.prod(over)
""",
    ),
]
