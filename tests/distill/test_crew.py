"""Several processes do what one does: shares, joined files, two real processes."""

import dataclasses
import json
import os
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest
import torch
from transformers import TrainingArguments

from helpers import world
from helpers.data import collate, encode_chat, read_chat
from helpers.distill import command, crew
from helpers.distill.long_run import shares
from helpers.distill.settings import RunError
from helpers.generate import Reply, Request, Sampling, generate_answers
from helpers.models import ChatModel, load
from helpers.train import cache, epoch_batches, trainer
from helpers.train.cache_codec import probabilities
from tests.train.test_loop import ROWS, llama

pytestmark = pytest.mark.slow

ROOT = Path(__file__).resolve().parents[2]
ONE = ["--prompts", "40", "--held-out", "5", "--steps", "4", "--max-new-tokens", "24"]


class Echo:
    """Answers with the number of the prompt, and fails at every fifth."""

    def __init__(self):
        self.asked = Counter()

    def describe(self):
        return {"model": "echo"}

    def replies(self, requests, sampling):
        for place, request in enumerate(requests):
            text = request.messages[0]["content"]
            self.asked[text] += 1
            failed = int(text) % 5 == 4
            yield place, Reply.failed("no") if failed else Reply("said " + text)


def alone(track) -> crew.Crew:
    return crew.Crew(track)


def prompts(n: int) -> list[dict]:
    return [
        {"id": i, "messages": [{"role": "user", "content": str(i)}]} for i in range(n)
    ]


@pytest.mark.filterwarnings("ignore:.*answers are missing")
def test_parts_of_a_killed_run_are_joined_and_not_asked_again(track, tmp_path):
    path, teacher = tmp_path / "answers.jsonl", Echo()
    for rank, its in ((0, prompts(12)[0:6:2]), (1, prompts(12)[1:8:2])):
        part = crew._part(path, rank)
        generate_answers(teacher, its, part, progress=False)
    with crew._part(path, 1).open("a") as file:
        file.write('{"id": 9, "mess')  # torn
    how = {"batch_size": 4, "progress": False}
    rows = crew.answers(alone(track), teacher, prompts(12), path, **how)
    assert set(teacher.asked.values()) == {1} and len(teacher.asked) == 12
    assert [row["id"] for row in rows] == [i for i in range(12) if i % 5 != 4]
    assert len(read_chat(path)) == 10
    assert len(read_chat(tmp_path / "answers.failed.jsonl")) == 2
    assert not list(tmp_path.glob("*part*"))


def test_a_replay_says_what_was_said():
    said = [{"role": "user", "content": "1"}, {"role": "assistant", "content": "one"}]
    usage = {"prompt_tokens": 2, "completion_tokens": 3}
    row = {"id": 1, "messages": said, "finish_reason": "length", "usage": usage}
    asked = [Request(said[:1]), Request([{"role": "user", "content": "2"}])]
    (_, known), (_, unknown) = crew.Replay([row]).replies(asked, Sampling())
    assert known == Reply("one", "length", 2, 3) and unknown.error


def test_caches_of_a_killed_run_are_joined(track, small_model, tokenizer, tmp_path):
    teacher = ChatModel(small_model, tokenizer)
    rows = encode_chat([e.row() for e in world.examples("train", 9)], tokenizer)
    quiet = {"kind": "hidden", "progress": False, "shard_bytes": 4000}
    whole = cache.write_cache(teacher, rows, tmp_path / "whole", **quiet)
    folder = tmp_path / "cache"
    for rank, chosen in ((0, range(0, 4)), (1, range(3, 7))):
        part = folder.with_name(f"cache.part{rank}")
        cache.write_cache(teacher, rows.select(chosen), part, **quiet)
    crew.cached(alone(track), teacher, rows, folder, **quiet)
    joined = cache.open_cache(folder, teacher=teacher)
    joined.check_files()
    batch = collate(list(rows), 0)
    assert len(joined) == len(whole) == 9
    torch.testing.assert_close(joined(batch), whole(batch), atol=1e-5, rtol=1e-4)
    assert not list(tmp_path.glob("*part*"))


def test_main_first_runs_once_and_its_error_goes_on(track):
    asked = []
    assert alone(track).main_first(lambda: asked.append(1) or "done") == "done"
    assert asked == [1]
    with pytest.raises(ZeroDivisionError):
        alone(track).first(lambda: 1 / 0)


# ---------------------------------------------------------------- training


@pytest.mark.parametrize("rows", [1, 5, 8, 11, 24, 25])
@pytest.mark.parametrize("processes", [1, 2, 3])
@pytest.mark.parametrize("accumulation", [1, 2])
def test_each_row_is_one_processs_and_steps_hold_the_same_rows(
    rows, processes, accumulation
):
    lengths = [(7 * i) % 5 + 3 for i in range(rows)]
    size, micro_batches = 2, accumulation * processes
    orders = [
        trainer._Order(lengths, size, micro_batches, 0, True, process, processes)
        for process in range(processes)
    ]
    shares = [list(order) for order in orders]
    assert {len(share) for share in shares} == {len(orders[0])}
    seen = Counter(row for share in shares for batch in share for row in batch)
    assert {row: n for row, n in seen.items() if row >= 0} == dict.fromkeys(
        range(rows), 1
    )
    groups = epoch_batches(lengths, size * micro_batches, 0, 0, True)
    for step, group in enumerate(groups):
        its = slice(step * accumulation, (step + 1) * accumulation)
        here = [r for share in shares for b in share[its] for r in b if r >= 0]
        assert sorted(here) == sorted(group)
        assert max(len(b) for share in shares for b in share[its]) <= size


def test_the_loss_is_multiplied_only_where_tokens_are_counted_over_all(tmp_path):
    losses = {}
    for over_all in (True, False):
        arguments = TrainingArguments(
            str(tmp_path),
            use_cpu=True,
            report_to=[],
            average_tokens_across_devices=over_all,
        )
        run = trainer.DistillationTrainer(llama(), arguments, train_dataset=ROWS)
        run.accelerator.state._shared_state["num_processes"] = 2
        batch = {**collate(ROWS, 0), "row": torch.arange(len(ROWS))}
        losses[over_all] = run.compute_loss(run.model, batch).item()
        run.accelerator.state._shared_state["num_processes"] = 1
    assert losses[True] == pytest.approx(2 * losses[False])


# ---------------------------------------------------------------- two processes


def lines(path: Path) -> list[str]:
    return sorted(path.read_text(encoding="utf-8").splitlines())


@pytest.fixture
def pair(track, small_model, tokenizer, tmp_path) -> list[str]:
    """The shipped student base as a teacher, which is small, and a smaller student."""
    small_model.save_pretrained(tmp_path / "thin")
    tokenizer.save_pretrained(tmp_path / "thin")
    thin = str(tmp_path / "thin")
    return ["--track", "tiny", "--teacher", track.student, "--student", thin]


def test_two_processes_do_what_one_does(pair, tmp_path):
    """Rows that no step divides evenly, through generation, cache and training."""
    options = [
        *pair,
        *ONE,
        "--signal",
        "cached",
        "--rank",
        "4",
        "--set",
        "batch_size=6",
    ]
    threads = {f"{name}_NUM_THREADS": "1" for name in ("OMP", "MKL")}
    launch = [sys.executable, "-m", "accelerate.commands.launch", "--multi_gpu"]
    launch += ["--num_processes", "2", "--num_machines", "1", "--mixed_precision", "no"]
    launch += ["--dynamo_backend", "no", "--main_process_port", "0"]
    two, one = tmp_path / "two", tmp_path / "one"
    said = subprocess.run(
        [*launch, "-m", "helpers.distill", *options, "--out", str(two)],
        cwd=ROOT,
        env=os.environ | threads | {"CUDA_VISIBLE_DEVICES": ""},
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert said.returncode == 0, said.stderr[-3000:]
    assert said.stdout.count("generate ...") == 1, "one process speaks"
    assert command.main([*options, "--out", str(one)]) == 0

    for name in ("answers.jsonl", "train.jsonl", "dropped.jsonl"):
        assert lines(one / name) == lines(two / name)
    assert len(read_chat(one / "train.jsonl")) % 6, "a last step of fewer rows"
    tokenizer = load(one / "student", device="cpu").tokenizer
    batch = collate(list(encode_chat(read_chat(one / "train.jsonl"), tokenizer)), 0)
    stored = [cache.open_cache(way / "cache") for way in (one, two)]
    assert len(stored[0]) == len(stored[1])
    tables = [probabilities(s(batch), len(tokenizer)) for s in stored]
    torch.testing.assert_close(tables[0], tables[1], atol=1e-3, rtol=1e-3)
    weights = [load(way / "student", device="cpu").model for way in (one, two)]
    for (name, a), b in zip(
        weights[0].named_parameters(), weights[1].parameters(), strict=True
    ):
        torch.testing.assert_close(a, b, atol=1e-5, rtol=1e-4, msg=name)
    base = load(pair[-1], device="cpu").model
    both = zip(weights[0].parameters(), base.parameters(), strict=True)
    assert max((a - b).abs().max() for a, b in both) > 1e-2, "it was trained"
    cards = [json.loads((way / "results.json").read_text()) for way in (one, two)]
    assert [card["run_card"]["processes"] for card in cards] == [1, 2]


def test_rows_that_cannot_be_shared_are_refused(track):
    assert shares(track, 1) == (32, 1) and shares(track, 2) == (16, 1)
    small = dataclasses.replace(track, batch_size=1, accumulation=8)
    assert shares(small, 2) == (1, 4)
    with pytest.raises(RunError, match="3 processes"):
        shares(small, 3)


def test_all_processes_of_a_cpu_compute_in_float32(track):
    two = alone(track)
    two.size, two.device = 2, torch.device("cpu:0")
    assert two.place(track).dtype == torch.float32
    two.device = torch.device("cuda:1")
    gpu = dataclasses.replace(track, device="cuda")
    assert two.place(gpu).device == "cuda:1"
