"""What things cost, against costs known beforehand."""

from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch

from helpers import data, profile, world
from helpers.data import DataError
from helpers.generate import LocalTeacher, Prices, Reply, Usage
from helpers.models import ChatModel
from helpers.profile import speed
from tests.benchmarks import gpu


def test_parameters_and_bytes_count_a_tied_matrix_once(small_model):
    tied = torch.nn.Embedding(10, 4)
    head = torch.nn.Linear(4, 10, bias=False)
    head.weight = tied.weight
    model = torch.nn.ModuleList([tied, head])
    assert profile.parameters(model) == 40
    assert profile.weight_bytes(model) == 160
    assert profile.weight_bytes(model.half()) == 80
    tied.weight.requires_grad_(False)
    assert profile.parameters(model, trainable=True) == 0


def test_peak_memory_counts_what_lives_at_a_time():
    x = torch.ones(1000, 1000)  # 4 MB, there before

    def chain():
        y = x + 1
        for _ in range(5):
            y = y + 1  # the old and the new one live together

    def heap():
        return [x + i for i in range(5)]

    assert profile.peak_memory(chain) == 8_000_000
    assert profile.peak_memory(heap) == 20_000_000
    assert profile.peak_memory(lambda: x.view(-1)) == 0, "a view is no copy"
    assert profile.peak_memory(lambda: x.T[:10].add_(1)) == 0
    assert profile.peak_memory(lambda: (x + 1).T[:10] * 2) == 4_000_000 + 40_000


def test_a_storage_counts_until_its_last_view_is_gone():
    def action():
        big = torch.ones(1000)
        part = big[:10]
        del big
        other = torch.ones(1000)  # the first still lives below its view
        return part, other

    assert profile.peak_memory(action) == 8000


@pytest.mark.slow
def test_deeper_models_take_longer_and_answer_less(teacher, student):
    prompts = [e.messages for e in world.examples("test", 6)]
    models = {"teacher": teacher, "student": student}
    seconds = profile.latency(models, prompts, max_new_tokens=8)
    assert {name: len(s) for name, s in seconds.items()} == {"teacher": 6, "student": 6}
    assert np.median(seconds["student"]) < np.median(seconds["teacher"])
    speed = profile.throughput(models, prompts * 4, max_new_tokens=8)
    assert speed["student"] > speed["teacher"]


# ---------------------------------------------------------------- against a fake clock


class Clock:
    """Time goes on only where somebody works."""

    def __init__(self):
        self.now, self.asked = 0.0, []

    def perf_counter(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch):
    clock = Clock()
    monkeypatch.setattr(speed, "time", clock)
    return clock


class Fake:
    """A teacher whose answer to the prompt "5" has 5 tokens, a second each.

    `cold`: the first so many calls take a hundred seconds more. `concurrency` answers
    are under way; a free place is filled at once, or, in `batches`, when all are free.
    """

    def __init__(self, clock, name="fake", pace=1.0, cold=0, batches=False):
        self.clock, self.name, self.pace = clock, name, pace
        self.cold, self.batches, self.concurrency = [100.0] * cold, batches, 1

    def replies(self, requests, sampling):
        lengths = [int(request.messages[0]["content"]) for request in requests]
        lengths = [min(length, sampling.max_new_tokens) for length in lengths]
        self.clock.asked.append((self.name, self.concurrency, len(lengths)))
        start = self.clock.now + (self.cold.pop() if self.cold else 0.0)
        free, ends = [start] * self.concurrency, []
        for place, length in enumerate(lengths):
            if self.batches and place % self.concurrency == 0:
                free = [max(free)] * self.concurrency
            free.sort()
            free[0] += length * self.pace
            ends.append((free[0], place))
        for end, place in sorted(ends):
            self.clock.now = end
            yield place, Reply("x", completion_tokens=lengths[place])


def texts(*lengths):
    return [[{"role": "user", "content": str(length)}] for length in lengths]


def test_latency_is_the_time_of_each_answer(clock):
    seconds = profile.latency({"a": Fake(clock)}, texts(3, 5, 2), warm_up=1)
    assert list(seconds["a"]) == [3, 5, 2]


def test_the_first_token_does_not_wait_for_the_rest(clock):
    models = {"a": Fake(clock), "b": Fake(clock, pace=4.0)}
    seconds = profile.first_token(models, texts(3, 5, 2))
    assert list(seconds["a"]) == [1, 1, 1] and list(seconds["b"]) == [4, 4, 4]


def test_a_cold_start_is_not_counted(clock):
    cold = Fake(clock, cold=2)
    assert list(profile.latency({"a": cold}, texts(1, 1, 1))["a"]) == [1, 1, 1]
    cold = Fake(clock, cold=2)
    seconds = profile.latency({"a": cold}, texts(1, 1, 1), warm_up=0)["a"]
    assert list(seconds) == [101, 101, 1], "the mistake that the warm-up avoids"


def test_fewer_prompts_than_the_warm_up_wants_are_all_timed(clock):
    assert list(profile.latency({"a": Fake(clock)}, texts(2), warm_up=5)["a"]) == [2]


def test_a_cold_start_is_not_counted_at_any_level(clock):
    models = {"a": Fake(clock), "b": Fake(clock)}
    table = profile.concurrency(models, texts(1, 1), levels=(1, 2), repeats=1)
    warm, counted = clock.asked[:4], clock.asked[4:]
    assert warm == [("fake", 1, 1)] * 2 + [("fake", 2, 2)] * 2
    assert len(counted) == len(table) == 4 and table["p95"].max() == 1


def test_models_take_turns_so_that_a_slow_moment_falls_on_all(clock):
    class Busy(Fake):
        """From second 40 to 88 something else runs: all take three times longer."""

        def replies(self, requests, sampling):
            self.pace = 3.0 if 40 <= clock.now < 88 else 1.0
            yield from super().replies(requests, sampling)

    models = {"a": Busy(clock, "a"), "b": Busy(clock, "b")}
    seconds = profile.latency(models, texts(*[2] * 20), warm_up=0)
    assert clock.asked[:4] == [("a", 1, 1), ("b", 1, 1)] * 2
    assert set(seconds["a"]) == {2, 6}, "the slow moment was there"
    fair = profile.ratio(seconds["a"], seconds["b"], statistic=np.mean)
    assert fair.value == 1
    clock.now = 0.0  # the mistake: first one model, then the other
    apart = [profile.latency({n: models[n]}, texts(*[2] * 20), warm_up=0) for n in "ab"]
    assert np.mean(apart[1]["b"]) > 1.5 * np.mean(apart[0]["a"])


def test_models_take_turns_under_load(clock):
    models = {"a": Fake(clock, "a"), "b": Fake(clock, "b")}
    profile.concurrency(models, texts(1, 1), levels=(1, 2), repeats=2)
    turns = [(name, level, 2) for level in (1, 2) for name in "ab"]
    assert clock.asked[4:] == turns * 2


def test_the_clock_is_read_when_the_device_is_done(clock, monkeypatch):
    pending, waited = [50.0], []  # of somebody else, and not to be counted

    class Launches(Fake):
        """As on a GPU: a reply is there at once, the work behind it is not done."""

        def __init__(self, chat, batch_size):
            super().__init__(clock)
            self.chat = chat

        def replies(self, requests, sampling):
            for place, _ in enumerate(requests):
                pending.append(2.0)
                yield place, Reply("x", completion_tokens=1)

    def synchronize(device):
        waited.append(device.type)
        clock.now += sum(pending)
        pending.clear()

    monkeypatch.setattr(speed, "LocalTeacher", Launches)
    monkeypatch.setattr(torch.accelerator, "synchronize", synchronize)
    chat = ChatModel(SimpleNamespace(device=torch.device("cuda")), None)
    seconds = profile.latency({"a": chat}, texts(1, 1, 1), warm_up=1)
    assert list(seconds["a"]) == [2, 2, 2]
    assert waited == ["cuda"] * 8, "before and after each of the four answers"
    assert profile.throughput({"a": chat}, texts(1, 1, 1))["a"] == 3 / 6


def test_nothing_is_waited_for_on_a_processor(small_model, tokenizer, monkeypatch):
    monkeypatch.setattr(torch.accelerator, "synchronize", lambda *_: pytest.fail("?"))
    models = {"m": ChatModel(small_model, tokenizer)}
    seconds = profile.latency(models, texts(1, 2), max_new_tokens=2)["m"]
    assert len(seconds) == 2 and (seconds > 0).all()


def test_throughput_is_that_of_the_best_repeat(clock):
    cold = Fake(clock, cold=1)
    found = profile.throughput({"a": cold}, texts(1, 2, 3, 4), batch_size=2)
    assert found["a"] == 4 / 6


def test_load_is_what_a_closed_loop_of_users_sees(clock):
    table = profile.concurrency(
        {"a": Fake(clock)}, texts(1, 2, 3, 4), levels=(1, 2), repeats=1
    )
    alone, two = table.to_dict("records")
    assert alone["answers a second"] == 4 / 10 and alone["tokens a second"] == 1
    assert alone["p50"] == 2.5 and alone["p95"] == pytest.approx(3.85)
    # Two users: answers end at 1, 2, 4 and 6, each asked when its place got free.
    assert two["answers a second"] == 4 / 6 and two["tokens a second"] == 10 / 6
    assert two["p50"] == 2.5 and two["p95"] == pytest.approx(3.85)


def test_the_wait_for_a_free_place_is_part_of_the_latency(clock):
    models = {"a": Fake(clock, batches=True)}
    table = profile.concurrency(models, texts(1, 2, 3, 4), levels=(2,), repeats=1)
    # Ends at 1, 2, 5, 6. The first user asks again at 1, but waits for the other.
    waits = [1, 2, 4, 4]
    assert table["p50"].item() == np.median(waits)
    assert table["p95"].item() == pytest.approx(np.percentile(waits, 95))


def test_a_prompt_without_an_answer_is_not_timed(clock):
    class Failing(Fake):
        def replies(self, requests, sampling):
            yield 0, Reply.failed("too long")

    with pytest.raises(DataError, match="prompt 1 cannot be timed: too long"):
        profile.latency({"a": Failing(clock)}, texts(1))


def test_what_cannot_be_timed_is_refused(clock):
    with pytest.raises(ValueError, match="no prompts"):
        profile.latency({"a": Fake(clock)}, [])
    for settings in ({"levels": (1, 3)}, {"levels": (0,)}, {"levels": ()},
                     {"levels": (1,), "repeats": 0}):  # fmt: skip
        with pytest.raises(ValueError, match="a prompt for each"):
            profile.concurrency({"a": Fake(clock)}, texts(1, 2), **settings)


# ---------------------------------------------------------------- tables and ratios


def load(**rates):
    """A table of `concurrency`: model -> level -> (answers a second, p95) a repeat."""
    rows = [
        [name, level, repeat, rate, 10 * rate, p95 / 2, p95]
        for name, levels in rates.items()
        for level, repeats in levels.items()
        for repeat, (rate, p95) in enumerate(repeats)
    ]
    columns = ["model", "concurrency", "repeat", "answers a second", "tokens a second"]
    return pd.DataFrame(rows, columns=[*columns, "p50", "p95"])


def test_users_are_served_while_95_in_100_keep_the_limit_every_time():
    table = load(
        quick={1: [(1, 0.1)], 4: [(2, 0.5)], 16: [(3, 1.0)], 64: [(4, 1.1)]},
        moody={1: [(1, 0.1), (1, 0.1)], 4: [(2, 0.5), (2, 1.2)], 16: [(3, 1), (3, 1)]},
        slow={1: [(1, 2.0)], 4: [(1, 0.9)]},
    )
    assert profile.users_served(table, 1.0) == {"quick": 16, "moody": 1, "slow": 0}


def test_the_spread_of_repeats_is_shown():
    table = profile.spread(load(a={4: [(1, 1), (3, 1), (8, 2)]}))
    row = table.loc[("a", 4)]
    assert list(row["answers a second"]) == [3, 1, 8]
    assert list(row["p95"]) == [1, 1, 2] and "repeat" not in table


def test_a_speed_up_is_a_ratio_within_each_repeat():
    table = load(a={1: [(10, 1), (20, 1), (9, 1)]}, b={1: [(1, 1), (4, 1), (3, 1)]})
    found = profile.speed_up(table, "a", "b").loc[1]
    assert list(found) == [5, 3, 10], "not the ratio of medians, 10 / 3"
    with pytest.raises(ValueError, match=r"no \['c'\] in the table"):
        profile.speed_up(table, "a", "c")


def test_a_ratio_of_times_is_paired_by_prompt():
    rng = np.random.default_rng(0)
    of = rng.lognormal(size=40)
    exact = profile.ratio(of / 4, of)
    assert exact.value == exact.low == exact.high == 0.25
    slow_moment = np.where(np.arange(40) == 7, 1000, 1.0)
    assert profile.ratio(slow_moment, np.full(40, 4.0)).value == 0.25
    mean = profile.ratio([1, 2, 3], [10, 20, 60], statistic=np.mean)
    assert mean.value == pytest.approx(6 / 90)
    assert mean.low < mean.value < mean.high
    with pytest.raises(ValueError, match="one length"):
        profile.ratio([1, 2], [1, 2, 3])


def test_the_interval_of_a_ratio_covers_the_truth():
    rng, hits = np.random.default_rng(0), 0
    for _ in range(200):
        length = rng.uniform(1, 3, 60)
        seconds = [length * rng.lognormal(scale, 0.2, 60) for scale in (0, 1)]
        found = profile.ratio(*seconds, statistic=np.mean, resamples=500)
        hits += found.low <= np.exp(-1) <= found.high
    assert 0.9 <= hits / 200 <= 0.99


# ---------------------------------------------------------------- bytes and money


def test_bytes_on_disk_are_those_of_the_files(small_model, tmp_path):
    expected = profile.disk_bytes(small_model)
    assert expected == 2 * profile.parameters(small_model)
    small_model.half().save_pretrained(tmp_path / "model")
    (tmp_path / "notes.txt").write_text("no weights")
    saved = profile.disk_bytes(tmp_path)
    tensors = len(list(small_model.parameters()))
    assert 0 < saved - expected < 150 * tensors, "the header only"
    assert profile.disk_bytes(small_model) == expected, "held in half precision, too"
    with pytest.raises(FileNotFoundError, match="no safetensors"):
        profile.disk_bytes(tmp_path / "nothing")


def test_a_million_answers_cost_the_hours_they_take():
    # 10 a second are 36,000 an hour: 27.8 hours.
    assert profile.Machine(3.6).cost(10) == pytest.approx(100)
    assert profile.Machine(3.6, busy=0.5).cost(10) == pytest.approx(200)
    assert profile.Machine(3.6).cost(10, answers=36_000) == pytest.approx(3.6)
    for bad in ({"price_an_hour": -1}, {"price_an_hour": 1, "busy": 0}):
        with pytest.raises(ValueError, match="busy"):
            profile.Machine(**bad)
    with pytest.raises(ValueError, match="measure it"):
        profile.Machine(1).cost(0)


def test_a_million_answers_of_an_api_cost_their_tokens():
    # 4 answers: 400 tokens read at 2 a million, 100 written at 10 a million.
    cost = profile.api_cost(Prices(2, 10), Usage(400, 100), answered=4)
    assert cost == pytest.approx(1e6 * (100 * 2 + 25 * 10) / 1e6)
    with pytest.raises(ValueError, match="no answers"):
        profile.api_cost(Prices(2, 10), Usage(), answered=0)


# ---------------------------------------------------------------- the real engine


def test_the_engine_takes_prompts_in_the_order_that_is_timed(small_model, tokenizer):
    chat = ChatModel(small_model, tokenizer)
    words = ["one", "two words", "three words here", "no", "a b c d e f g h"] * 5
    prompts = [[{"role": "user", "content": text}] for text in words]
    asked = speed._by_length(chat, prompts)
    run = speed._ask(LocalTeacher(chat, 1), asked, max_new_tokens=2)
    assert list(run.moments) == list(range(len(prompts)))
    assert sorted(map(str, asked)) == sorted(map(str, prompts))


def test_a_model_under_load_writes_more_and_answers_later(student):
    prompts = [e.messages for e in world.examples("test", 32)]
    table = profile.concurrency({"s": student}, prompts, levels=(1, 16), repeats=2)
    assert len(table) == 4 and (table["p50"] <= table["p95"]).all()
    medians = profile.spread(table).xs("median", axis=1, level=1).loc["s"]
    assert medians.loc[16, "tokens a second"] > 1.5 * medians.loc[1, "tokens a second"]
    assert medians.loc[16, "p50"] > medians.loc[1, "p50"]
    # Little's law: users = answers a second x mean seconds; the median is near it.
    assert medians.loc[1, "answers a second"] * medians.loc[1, "p50"] == pytest.approx(
        1, rel=0.35
    )


# ---------------------------------------------------------------- runs on a GPU


def test_a_missing_gpu_record_is_said_to_be_missing(tmp_path, capsys):
    assert profile.gpu_record(tmp_path / "gpu.json") is None
    said = capsys.readouterr().out
    assert "no record" in said and "python -m tests.benchmarks.gpu" in said


def test_a_gpu_record_is_a_table_with_its_run_card(tmp_path):
    path = tmp_path / "gpu.json"
    data.write_results(path, ["track", "peak GiB"], [["gpu", 9.5]], {"device": "x"})
    table = profile.gpu_record(path)
    assert table["peak GiB"].item() == 9.5 and table.attrs == {"device": "x"}


def test_the_command_that_records_a_gpu_runs_on_a_processor(capsys, monkeypatch):
    monkeypatch.setattr(data, "write_results", lambda *_: pytest.fail("wrote"))
    rows = [dict(zip(gpu.COLUMNS, row, strict=True)) for row in gpu.main(["--dry-run"])]
    assert [row["method"] for row in rows] == ["LoRA", "QLoRA"]
    for row in rows:
        assert row["ledger GiB"] == pytest.approx(row["peak GiB"], rel=0.15)
        assert row["tokens a second"] > 0
    assert "fraction of matmul" in capsys.readouterr().out


def test_the_command_that_records_a_gpu_needs_one(monkeypatch, capsys):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(SystemExit):
        gpu.main([])
    assert "needs a CUDA GPU; --dry-run" in capsys.readouterr().err
