"""Time and memory of a typical funnel: `python -m tests.benchmarks.quality`.

A file of chat rows from the helpdesk world, with answers that loop, decline, end too
soon or are copies, and with rows of the test split planted, is read, checked and passed
through the rules, in a process of its own. Printed are the planted rows that reach a
rule and those that it finds. Seconds of a step are processor time, which others on the
machine cannot lengthen; the total is told as time that passed, too. The memory is the
peak of the whole process. Writes notebooks/results/funnel_speed.json.
"""

import argparse
import json
import random
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path

from helpers import data, quality, world

ROWS, SPLITS, ITEMS = 100_000, ("validation", "test", "shifted"), 1000
PLANTED = ("repetition", "refusal", "truncated", "near-duplicates", "decontaminate")
COLUMNS = ["step", "in", "dropped", "planted", "found", "cpu_seconds"]
LIMIT = {"seconds": 120, "MiB": 1024}


def evaluation() -> dict[str, list[dict]]:
    return {split: [e.row() for e in world.examples(split, ITEMS)] for split in SPLITS}


def planted(n: int) -> list[dict]:
    """n rows, 1 % of each defect; `planted` names the rule against it."""
    rng, each = random.Random(0), n // 100
    rows = [e.row() for e in world.examples("train", n - 2 * each)]
    rows = [{**row, "finish_reason": "stop"} for row in rows]
    defects = iter(rng.sample(range(len(rows)), 3 * each))
    for rule in PLANTED[:3]:
        for _ in range(each):
            row = rows[next(defects)]
            answer, row["planted"] = row["messages"][-1], rule
            if rule == "repetition":
                answer["content"] = 8 * f"{answer['content']} "
            elif rule == "refusal":
                answer["content"] = "I'm sorry, but I cannot help with that request."
            else:
                row["finish_reason"], answer["content"] = "length", "Please remove the"
    sound = [row for row in rows if "planted" not in row]
    copies = []
    for row in rng.sample(sound, each):
        *prompt, answer = row["messages"]
        answer = {**answer, "content": answer["content"].upper()}
        copies.append({**row, "messages": [*prompt, answer]})
    leaks = [e.row() for e in world.examples("test", ITEMS)][:each]
    for rule, more in (("near-duplicates", copies), ("decontaminate", leaks)):
        for row in more:
            id = f"{rule} {len(rows)}"
            rows.append({**row, "id": id, "finish_reason": "stop", "planted": rule})
    return rows


def rules(held_out: Mapping[str, list[dict]]) -> dict[str, quality.Rule]:
    return {
        "length": quality.length(1, 200),
        "repetition": quality.repetition(),
        "refusal": quality.refusal(),
        "truncated": quality.truncated(),
        "decontaminate": quality.decontaminate(held_out, share=0.5),
        "near-duplicates": quality.near_duplicates(),
        "balance": quality.balance(),
    }


def measure(path: Path) -> dict:
    """Rows, planted rows found and processor time of each step; MiB of this process."""
    lines, start, begun = [], time.perf_counter(), time.process_time()
    rows = data.read_chat(path)
    lines.append(["read", len(rows), 0, 0, 0, time.process_time() - begun])
    for name, rule in rules(evaluation()).items():
        begin = time.process_time()
        result = quality.funnel(rows, {name: rule})
        seconds = time.process_time() - begin
        defects = [[row.get("planted") for row in its].count(name)
                   for its in (rows, result.dropped)]  # fmt: skip
        lines.append([name, len(rows), len(result.dropped), *defects, seconds])
        rows = result.kept
    scale = 2**20 if sys.platform == "darwin" else 2**10  # ru_maxrss: bytes or KiB
    return {
        "lines": [[*line[:-1], round(line[-1], 2)] for line in lines],
        "seconds": round(time.perf_counter() - start, 1),
        "cpu_seconds": round(time.process_time() - begun, 1),
        "MiB": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / scale),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=ROWS)
    parser.add_argument("--no-results", action="store_true", help="print only")
    parser.add_argument("--measure", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.measure:
        print(json.dumps(measure(options.measure)))
        return
    with tempfile.TemporaryDirectory() as folder:
        path = data.write_chat(Path(folder) / "rows.jsonl", planted(options.rows))
        command = [sys.executable, "-m", "tests.benchmarks.quality", "--measure", path]
        output = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    found = json.loads(output.stdout.splitlines()[-1])
    for line in found["lines"]:
        print(dict(zip(COLUMNS, line, strict=True)))
    print({name: value for name, value in found.items() if name != "lines"})
    if not options.no_results:
        # Here, for it loads the training code, which is not measured.
        from helpers.course import record

        versions = {"datasketch": metadata.version("datasketch")}
        measured = {name: value for name, value in found.items() if name != "lines"}
        card = data.run_card(
            "python -m tests.benchmarks.quality",
            seeds=[0],
            processes=1,
            rows=options.rows,
            measured=measured,
            limits=LIMIT,
        )
        card["versions"] |= versions
        card["minutes"] = round(found["seconds"] / 60, 1)
        path = record.RESULTS / "funnel_speed.json"
        data.write_results(path, COLUMNS, found["lines"], card)


if __name__ == "__main__":
    main()
