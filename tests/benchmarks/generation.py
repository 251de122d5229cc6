"""Speed of stage 1: `python -m tests.benchmarks.generation`.

The same prompts, answered greedily by the same teacher in three ways: the loop of most
tutorials (`model.generate`, one prompt at a time), `model.generate` on padded batches
in the order of arrival, and `generate.answer`. The ways take turns; the best turn of
each counts, since everything else that a machine does can only slow one down. All
texts must be equal. Writes notebooks/results/generation.json.
"""

import argparse
import time
from collections.abc import Sequence

import torch

from helpers import data, generate, models, tracks, world
from helpers.course import record
from helpers.data import render_prompt
from helpers.models import ChatModel

PROMPTS, ALONE, BATCH, TURNS = 512, 32, 64, 3  # ALONE: prompts that the loop gets
COLUMNS = ["way", "answers a second", "times the loop"]


@torch.inference_mode()
def by_generate(teacher: ChatModel, prompts: Sequence, batch_size: int) -> list[str]:
    model, tokenizer = teacher
    tokenizer.padding_side = "left"
    texts, answers = [render_prompt(tokenizer, prompt) for prompt in prompts], []
    for start in range(0, len(texts), batch_size):
        batch = tokenizer(
            texts[start : start + batch_size],
            padding=True,
            add_special_tokens=False,
            return_tensors="pt",
        ).to(model.device)
        new = model.generate(
            input_ids=batch["input_ids"],
            attention_mask=batch["attention_mask"],
            max_new_tokens=64,
            do_sample=False,
        )[:, batch["input_ids"].shape[1] :]
        answers += [text.strip() for text in tokenizer.batch_decode(new, True)]
    return answers


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--threads", type=int, default=2)
    track = tracks.setup(threads=parser.parse_args().threads)
    teacher = models.load_teacher(track)
    prompts = [example.messages for example in world.examples("train", PROMPTS)]
    ways = {
        "one at a time": lambda: by_generate(teacher, prompts[:ALONE], 1),
        "padded batches": lambda: by_generate(teacher, prompts, BATCH),
        "generate.answer": lambda: generate.answer(*teacher, prompts, batch_size=BATCH),
    }
    said, speed = {}, dict.fromkeys(ways, 0.0)
    for _ in range(TURNS):
        for way, run in ways.items():
            start = time.perf_counter()
            said[way] = run()
            seconds = time.perf_counter() - start
            speed[way] = max(speed[way], len(said[way]) / seconds)
    ours = said["generate.answer"]
    assert said["padded batches"] == ours and said["one at a time"] == ours[:ALONE]
    loop = speed["one at a time"]
    rows = [[way, round(s, 1), round(s / loop, 1)] for way, s in speed.items()]
    card = data.run_card(
        "python -m tests.benchmarks.generation", prompts=PROMPTS, batch_size=BATCH
    )
    data.write_results(record.RESULTS / "generation.json", COLUMNS, rows, card)
    print(COLUMNS, *rows, sep="\n")


if __name__ == "__main__":
    main()
