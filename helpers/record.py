"""The long runs behind the notebooks: `python -m helpers.record lap|lora`.

Each writes `notebooks/results/<name>.json`: columns, rows and a run card that says how
to repeat it. Rows are written as they come; a killed run goes on where it stopped.
"""

import argparse
import json
import time
from collections.abc import Callable, Sequence
from functools import partial
from importlib import metadata
from pathlib import Path

import torch
from transformers import PreTrainedModel

from . import evaluate, models, pretrain, tracks, world
from .distill import distil, teacher_rows
from .models import ChatModel

RESULTS = Path(__file__).resolve().parents[1] / "notebooks" / "results"
SEEDS = (0, 1, 2)
PROMPTS, STEPS = 2000, 600
FULL_LEARNING_RATE = 1e-3  # full fine-tuning wants a lower rate than LoRA


def write_results(
    path: Path, columns: Sequence[str], rows: Sequence[Sequence], card: dict
) -> Path:
    """Write a results file `{"columns", "rows", "run_card"}`, whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(path.name + ".part")
    content = {"columns": list(columns), "rows": list(rows), "run_card": card}
    part.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    part.replace(path)
    return path


def run_card(command: str, **more) -> dict:
    """What is needed to repeat a run: command, seeds, device, threads, versions."""
    return {
        "command": command,
        "device": "cpu",
        "threads": torch.get_num_threads(),
        "versions": {p: metadata.version(p) for p in ("torch", "transformers", "peft")},
        **more,
    }


class Recorder:
    """Runs what is not yet in the file, one row a run."""

    def __init__(self, name: str, columns: Sequence[str], **card):
        self.path, self.columns = RESULTS / f"{name}.json", list(columns)
        self.card = run_card(f"python -m helpers.record {name}", **card)
        self.rows: list[list] = []
        if self.path.exists():
            self.rows = json.loads(self.path.read_text(encoding="utf-8"))["rows"]

    def run(self, key: tuple, measure: Callable[[], Sequence]) -> None:
        """Append the row `key + measure()`, unless a row begins with `key`."""
        if any(tuple(row[: len(key)]) == key for row in self.rows):
            return
        start = time.perf_counter()
        self.rows.append([*key, *measure()])
        minutes = (time.perf_counter() - start) / 60
        self.card["minutes"] = round(self.card.get("minutes", 0) + minutes, 1)
        write_results(self.path, self.columns, self.rows, self.card)
        print(dict(zip(self.columns, self.rows[-1], strict=True)), flush=True)


def measure(chat: ChatModel, test: Sequence, shifted: Sequence) -> list[float]:
    """Accuracy on `test`, on `shifted`, and on `test` by task."""
    scored = evaluate.compare({"model": chat}, [*test, *shifted])
    parts = scored.iloc[: len(test)], scored.iloc[len(test) :]
    by_task = evaluate.by_task(parts[0])["model"]
    shares = [part["right"].mean() for part in parts]
    return [round(float(x), 4) for x in (*shares, *by_task[list(world.TASKS)])]


def lap() -> None:
    """Teacher, student base, and the student taught in three ways at equal budget."""
    track = tracks.setup()
    teacher, student = models.load_teacher(track), models.load_student(track)
    test, shifted = world.examples("test", 1000), world.examples("shifted", 500)
    columns = ["method", "seed", "seconds", "test", "shifted", *world.TASKS]
    budget = dict(prompts=PROMPTS, steps=STEPS, lora_rank=track.lora_rank)
    recorder = Recorder("lap_seeds", columns, seeds=SEEDS, **budget)
    recorder.run(("teacher", 0), lambda: [0, *measure(teacher, test, shifted)])
    recorder.run(("student base", 0), lambda: [0, *measure(student, test, shifted)])

    def taught(rows: Sequence[dict], seed: int, signal: PreTrainedModel | None) -> list:
        chat, history, _ = distil(
            student, rows, track, teacher=signal, steps=STEPS, seed=seed, progress=False
        )
        return [round(history.seconds), *measure(chat, test, shifted)]

    for seed in SEEDS:
        careless = world.examples("train", PROMPTS, seed, label_noise=0.3)
        text = teacher_rows(teacher, careless, RESULTS / f"answers_{seed}.jsonl.part")
        for method, rows, signal in (
            ("careless labels", [e.row() for e in careless], None),
            ("teacher's text", text, None),
            ("teacher's logits", text, teacher.model),
        ):
            recorder.run((method, seed), partial(taught, rows, seed, signal))


def lora() -> None:
    """LoRA ranks against full fine-tuning, and LoRA on a base that knows no task."""
    track = tracks.setup()
    teacher, student = models.load_teacher(track), models.load_student(track)
    test = world.examples("test", 1000)
    columns = ["method", "rank", "targets", "seed", "steps", "trainable"]
    columns += ["accuracy", "seconds"]
    recorder = Recorder("lora", columns, seeds=SEEDS, prompts=PROMPTS)
    plain = ChatModel(pretrain.plain_text_base(student.tokenizer), student.tokenizer)
    methods = [("lora", student, rank) for rank in (2, 8, 32)]
    methods += [("full", student, None), ("lora on plain-text base", plain, 32)]

    def taught(base: ChatModel, rank: int | None, rows: list, seed: int) -> list:
        chat, history, trained = distil(
            base,
            rows,
            track,
            teacher=teacher.model,
            rank=rank,
            full=rank is None,
            learning_rate=None if rank else FULL_LEARNING_RATE,
            steps=STEPS,
            seed=seed,
            progress=False,
        )
        right = evaluate.compare({"model": chat}, test)["right"].mean()
        return [STEPS, trained, round(float(right), 4), round(history.seconds)]

    for seed in SEEDS:
        prompts = world.examples("train", PROMPTS, seed)
        rows = teacher_rows(teacher, prompts, RESULTS / f"answers_{seed}.jsonl.part")
        for method, base, rank in methods:
            targets = "every weight" if rank is None else "all-linear"
            run = partial(taught, base, rank, rows, seed)
            recorder.run((method, rank, targets, seed), run)


RECORDS = {"lap": lap, "lora": lora}


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m helpers.record", description=__doc__
    )
    parser.add_argument("name", choices=sorted(RECORDS))
    RECORDS[parser.parse_args().name]()


if __name__ == "__main__":
    main()
