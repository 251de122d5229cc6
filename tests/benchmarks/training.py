"""Speed and accuracy of the training loops: `python -m tests.benchmarks.training`.

The same student, rows, steps and loss (forward KL, no softening, full fine-tuning) by
four routes: `fit` and `DistillationTrainer` with the live teacher, TRL's `GKDTrainer`
off-policy, and `fit` with a dense cache. Tokens are real ones, padding not counted.
The routes take turns, once for each seed (it orders the rows); the best turn counts for
speed, and all turns together for accuracy. Writes notebooks/results/training.json.
"""

import argparse
import copy
import tempfile
import time
from collections.abc import Callable
from functools import partial

import pandas
import torch
from datasets import Dataset
from transformers import PreTrainedModel, TrainingArguments

from helpers import data, evaluate, models, tracks, world
from helpers.course import record
from helpers.models import ChatModel
from helpers.train import DistillationTrainer, Signal, cache, fit

ROWS, STEPS, BATCH, SEEDS = 1000, 100, 32, (0, 1, 2)
LEARNING_RATE = record.FULL_LEARNING_RATE
COLUMNS = ["route", "tokens a second", "ms a step", "accuracy", "low", "high"]


def arguments(folder: str, seed: int) -> dict:
    return dict(
        output_dir=folder,
        max_steps=STEPS,
        per_device_train_batch_size=BATCH,
        learning_rate=LEARNING_RATE,
        lr_scheduler_type="cosine",
        warmup_steps=int(0.05 * STEPS),
        weight_decay=0.0,
        save_strategy="no",
        logging_strategy="no",
        report_to=[],
        disable_tqdm=True,
        use_cpu=not torch.cuda.is_available(),
        seed=seed,
    )


def by_fit(
    student: PreTrainedModel,
    rows: Dataset,
    teacher: PreTrainedModel | Signal,
    seed: int,
):
    fit(
        student,
        rows,
        teacher=teacher,
        steps=STEPS,
        batch_size=BATCH,
        learning_rate=LEARNING_RATE,
        soft_weight=1.0,
        temperature=1.0,
        seed=seed,
        progress=False,
    )


def by_trainer(student, rows, teacher, seed: int):
    with tempfile.TemporaryDirectory() as folder:
        DistillationTrainer(
            student,
            TrainingArguments(**arguments(folder, seed)),
            train_dataset=rows,
            teacher=teacher,
            soft_weight=1.0,
            temperature=1.0,
        ).train()


def by_gkd(student, rows, teacher, seed: int, tokenizer):
    from trl.experimental.gkd import GKDConfig, GKDTrainer

    with tempfile.TemporaryDirectory() as folder:
        GKDTrainer(
            student,
            teacher,
            GKDConfig(**arguments(folder, seed), lmbda=0.0, beta=0.0, temperature=1.0),
            data_collator=partial(data.collate, pad_token_id=tokenizer.pad_token_id),
            train_dataset=rows,
            processing_class=tokenizer,
        ).train()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--threads", type=int, default=2)
    track = tracks.setup(threads=parser.parse_args().threads)
    teacher, base = models.load_teacher(track), models.load_student(track)
    examples = world.examples("train", ROWS)
    rows = data.encode_chat([e.row() for e in examples], base.tokenizer)
    test = world.examples("test", 300)
    tokens = sum(map(len, rows["input_ids"])) / len(rows) * BATCH * STEPS
    folder = tempfile.TemporaryDirectory()
    signal = cache.write_cache(teacher, rows, folder.name, kind="dense")
    gkd = partial(by_gkd, tokenizer=base.tokenizer)
    routes: dict[str, tuple[Callable, object]] = {
        "fit, live teacher": (by_fit, teacher.model),
        "DistillationTrainer, live teacher": (by_trainer, teacher.model),
        "TRL GKDTrainer, live teacher": (gkd, teacher.model),
        "fit, cached teacher": (by_fit, signal),
    }
    seconds: dict[str, list[float]] = {name: [] for name in routes}
    right: dict[str, list] = {name: [] for name in routes}
    for seed in SEEDS:
        for name, (train, source) in routes.items():
            student = copy.deepcopy(base.model).requires_grad_(True)
            start = time.perf_counter()
            train(student, rows, source, seed)
            seconds[name].append(time.perf_counter() - start)
            chat = ChatModel(student.eval(), base.tokenizer)
            right[name].append(evaluate.compare({name: chat}, test)["right"])
    lines = []
    for name, times in seconds.items():
        # The mean over the seeds of each example, and an interval over the examples.
        i = evaluate.accuracy(sum(r.to_numpy(float) for r in right[name]) / len(SEEDS))
        best = min(times)
        lines.append([name, round(tokens / best), round(1000 * best / STEPS, 1),
                      *(round(x, 4) for x in (i.value, i.low, i.high))])  # fmt: skip
    card = data.run_card(
        "python -m tests.benchmarks.training",
        seeds=SEEDS,
        steps=STEPS,
        batch=BATCH,
        rows=ROWS,
    )
    data.write_results(record.RESULTS / "training.json", COLUMNS, lines, card)
    print(pandas.DataFrame(lines, columns=COLUMNS).to_string(index=False))


if __name__ == "__main__":
    main()
