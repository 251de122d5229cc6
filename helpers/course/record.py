"""The long runs behind the notebooks: `python -m helpers.record NAME`, see RECORDS.

Each writes `notebooks/results/<name>.json`: columns, rows and a run card that says how
to repeat it. Rows are written as they come; a killed run goes on where it stopped.
"""

import argparse
import json
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path

from .. import data, evaluate, generate, losses, models, profile, quality, tracks, world
from ..data.results import run_card, write_results
from ..distill.pipeline import distil, teacher_rows
from ..models.loading import ChatModel
from ..train import cache
from . import pretrain

RESULTS = Path(__file__).resolve().parents[2] / "notebooks" / "results"
SCRATCH = RESULTS / "scratch.part"  # the teacher's answers and signals; git ignores it
SEEDS = (0, 1, 2)
STEPS = 400  # of the optimiser, in every run
BUDGETS = (60, 250, 1000, 4000)  # prompts
PROMPTS = 1000  # where the budget is not the question
FULL_LEARNING_RATE = 4e-3  # full fine-tuning wants a lower rate than LoRA
WARM = 1.5  # a sampling temperature at which the teacher errs in a fifth of its answers
SAMPLES = 4
CARELESS = 0.3  # share of wrong labels of an annotator in a hurry
CASE_BUDGETS = (250, 1000, 8000)  # prompts of the case study
CASE_STEPS = 1500
COST_PROMPTS, USERS, REPEATS = 128, (1, 4, 16, 64), 6  # what costs are measured with


class Recorder:
    """Runs what is not yet in the file, one row a run."""

    def __init__(self, name: str, columns: Sequence[str], **card):
        self.path, self.columns = RESULTS / f"{name}.json", list(columns)
        self.card = run_card(f"python -m helpers.record {name}", **card)
        self.rows: list[list] = []
        if self.path.exists():
            before = json.loads(self.path.read_text(encoding="utf-8"))
            self.rows = before["rows"]
            self.card["minutes"] = before["run_card"]["minutes"]

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


class Pair:
    """The two models of the track, the test, and what the teacher says to prompts."""

    def __init__(self, threads: int = 2):
        self.track = tracks.setup(threads=threads)
        self.teacher = models.load_teacher(self.track)
        self.student = models.load_student(self.track)
        self.test = world.examples("test", 1000)
        self.shifted = world.examples("shifted", 500)

    def text(self, prompts: int, seed: int) -> list[dict]:
        """The teacher's verified answers to the first prompts of a seed."""
        examples = world.examples("train", prompts, seed)
        return teacher_rows(self.teacher, examples, SCRATCH / f"answers_{seed}.jsonl")

    def signal(self, rows: Sequence[dict], seed: int) -> cache.TeacherCache:
        """The teacher's distribution over every answer token of these rows, exactly."""
        encoded = data.encode_chat(rows, self.student.tokenizer)
        folder = SCRATCH / f"signal_{seed}"
        return cache.write_cache(self.teacher, encoded, folder, kind="dense")

    def taught(self, rows: Sequence[dict], base: ChatModel | None = None, **settings):
        """`distil` in the record's budget; the student, its history, what trained."""
        settings = {"steps": STEPS, "progress": False} | settings
        return distil(base or self.student, rows, self.track, **settings)

    def right(self, chat: ChatModel, examples: Sequence) -> float:
        return float(evaluate.compare({"model": chat}, examples)["right"].mean())


def budgets(pair: Pair) -> None:
    """Five ways to teach the same student, from few prompts to many."""
    columns = ["method", "prompts", "seed", "steps", "test", "shifted", "seconds"]
    recorder = Recorder("budgets", columns, seeds=SEEDS, lora_rank=pair.track.lora_rank)

    def measure(chat: ChatModel, steps: int, seconds: float) -> list:
        right = [round(pair.right(chat, e), 4) for e in (pair.test, pair.shifted)]
        return [steps, *right, round(seconds)]

    def taught(rows: Sequence[dict], **settings) -> list:
        chat, history, _ = pair.taught(rows, **settings)
        return measure(chat, STEPS, history.seconds)

    recorder.run(("teacher", 0, 0), lambda: measure(pair.teacher, 0, 0))
    recorder.run(("student base", 0, 0), lambda: measure(pair.student, 0, 0))
    for seed in SEEDS:
        signal = pair.signal(pair.text(max(BUDGETS), seed), seed)
        for prompts in BUDGETS:
            text = pair.text(prompts, seed)
            gold, careless = (
                [e.row() for e in world.examples("train", prompts, seed, label_noise=x)]
                for x in (0.0, 0.3)
            )
            for method, rows, settings in (
                ("gold labels", gold, {}),
                ("careless labels", careless, {}),
                ("teacher's text", text, {}),
                ("teacher's logits", text, {"teacher": signal}),
                ("mix", text, {"teacher": signal, "soft_weight": 0.5}),
            ):
                run = partial(taught, rows, seed=seed, **settings)
                recorder.run((method, prompts, seed), run)


def kinds(pair: Pair) -> None:
    """Every divergence, and two temperatures, on the same text of the teacher."""
    columns = ["kind", "temperature", "seed", "steps", "test", "forward_kl", "top1"]
    recorder = Recorder("kinds", [*columns, "seconds"], seeds=SEEDS, prompts=PROMPTS)
    tokenizer = pair.student.tokenizer
    held_out = data.encode_chat([e.row() for e in pair.test[:300]], tokenizer)
    said_by = pair.teacher.model

    def taught(rows: list, **settings) -> list:
        chat, history, _ = pair.taught(rows, **settings)
        alike = evaluate.agreement(chat.model, said_by, held_out)
        shares = pair.right(chat, pair.test), alike["forward_kl"], alike["top1"]
        return [STEPS, *(round(x, 4) for x in shares), round(history.seconds)]

    ways = [(kind, 1.0) for kind in losses.KINDS]
    ways += [("forward_kl", 2.0), ("forward_kl", 4.0)]
    for seed in SEEDS:
        text = pair.text(PROMPTS, seed)
        settings = {"teacher": pair.signal(text, seed), "seed": seed}
        for kind, temperature in ways:
            settings |= {"kind": kind, "temperature": temperature}
            recorder.run((kind, temperature, seed), partial(taught, text, **settings))


def lora(pair: Pair) -> None:
    """LoRA's rank, alpha and targets, full fine-tuning at equal steps and at equal
    time, both from logits and from text, and LoRA on a base that knows no task."""
    columns = ["way", "seed", "rank", "alpha", "targets", "signal", "steps"]
    columns += ["trainable", "accuracy", "seconds"]
    recorder = Recorder("lora", columns, seeds=SEEDS, prompts=PROMPTS)
    tokenizer = pair.student.tokenizer
    plain = ChatModel(pretrain.plain_text_base(tokenizer), tokenizer)
    full = {"full": True, "learning_rate": FULL_LEARNING_RATE}
    attention = ["q_proj", "k_proj", "v_proj", "o_proj"]
    mlp = ["gate_proj", "up_proj", "down_proj"]
    ways = {
        **{f"LoRA, rank {rank}": {"rank": rank} for rank in (2, 8, 32)},
        "alpha = rank / 2": {"rank": 8, "alpha": 4},
        "alpha = 8 rank": {"rank": 8, "alpha": 64},
        "attention only": {"rank": 8, "targets": attention},
        "feed-forward only": {"rank": 8, "targets": mlp},
        "full": full,
        "full, equal time": full,
        "LoRA, rank 8, from text": {"rank": 8, "teacher": None},
        "full, from text": full | {"teacher": None},
        "LoRA on plain-text base": {"rank": 32, "base": plain},
    }

    def taught(way: str, rows: list, seed: int, **settings) -> list:
        settings = ways[way] | settings
        if way == "full, equal time":
            settings["steps"] = round(STEPS * seconds("LoRA, rank 8") / seconds("full"))
        chat, history, trained = pair.taught(rows, seed=seed, **settings)
        rank = settings.get("rank")
        targets = settings.get("targets", "all-linear")
        return [
            rank,
            rank and settings.get("alpha", 2 * rank),
            targets if isinstance(targets, str) else ", ".join(targets),
            "logits" if settings.get("teacher") else "text",
            settings.get("steps", STEPS),
            trained,
            round(pair.right(chat, pair.test), 4),
            round(history.seconds, 1),
        ]

    def seconds(way: str) -> float:
        return sum(row[-1] for row in recorder.rows if row[0] == way)

    for seed in SEEDS:
        text = pair.text(PROMPTS, seed)
        signal = {"teacher": pair.signal(text, seed)}
        for way, its in ways.items():
            run = partial(
                taught, way, text, seed, **({} if "teacher" in its else signal)
            )
            recorder.run((way, seed), run)


def quality_of_data(pair: Pair) -> None:
    """The same student on texts of different quality: prompts and steps are equal."""
    columns = ["method", "seed", "asked", "rows", "wrong", "steps", "test", "shifted"]
    recorder = Recorder(
        "quality", [*columns, "seconds"], seeds=SEEDS, prompts=PROMPTS, warm=WARM
    )

    def measure(
        asked: int, rows: Sequence[dict], is_wrong: Sequence, seed: int
    ) -> list:
        chat, history, _ = pair.taught(rows, seed=seed)
        right = [round(pair.right(chat, e), 4) for e in (pair.test, pair.shifted)]
        share = round(sum(map(bool, is_wrong)) / len(rows), 4)
        return [asked, len(rows), share, STEPS, *right, round(history.seconds)]

    for seed in SEEDS:
        examples = world.examples("train", PROMPTS, seed)
        prompts = [e.question() for e in examples]
        rule = quality.verified(examples)
        greedy = generate.generate_answers(
            pair.teacher, prompts, SCRATCH / f"greedy_{seed}.jsonl"
        )
        drawn = generate.generate_answers(
            pair.teacher,
            prompts,
            SCRATCH / f"warm_{seed}.jsonl",
            samples=SAMPLES,
            sampling_temperature=WARM,
            seed=seed,
        )
        first = [row for row in drawn if row["sample"] == 0]
        gold, careless = (
            [e.row() for e in world.examples("train", PROMPTS, seed, label_noise=x)]
            for x in (0.0, 0.3)
        )
        for method, asked, rows in (
            ("gold labels", 0, gold),
            ("careless labels", 0, careless),
            ("greedy, all", 1, greedy),
            ("greedy, verified", 1, quality.best_of_n(greedy, rule)),
            ("warm, all", 1, first),
            ("warm, verified", 1, quality.best_of_n(first, rule)),
            ("warm, majority of 4", 4, quality.majority_vote(drawn, world.facts_in)),
            ("warm, best of 4", 4, quality.best_of_n(drawn, rule)),
            ("warm, all right of 4", 4, quality.best_of_n(drawn, rule, "all")),
        ):
            wrong = quality.reasons(rule, rows)
            run = partial(measure, asked * PROMPTS, rows, wrong, seed)
            recorder.run((method, seed), run)


def knobs(pair: Pair) -> None:
    """Learning rates, temperature by soft weight, searches for settings, batches.

    Settings are compared on 500 prompts of validation; `right` and `right_on_test` say
    which were answered rightly, see `train.unpack_right`.
    """
    from . import knobs  # optuna: only this record needs it

    columns = ["group", "way", "seed", *knobs.SETTINGS, *knobs.FOUND]
    recorder = Recorder("knobs", columns, seeds=SEEDS, prompts=PROMPTS)
    students, plain = knobs.Knobs(pair, PROMPTS), knobs.runs()
    for group in ("learning rate", "map", "search", "batch"):
        for seed in SEEDS:
            for _, way, changes in (run for run in plain if run[0] == group):
                settings = knobs.USUAL | changes
                run = partial(students.run, seed, way == "full", settings)
                recorder.run((group, way, seed, *settings.values()), run)
            for way in knobs.searches() if group == "search" else ():
                run = partial(students.search, seed, way)
                recorder.run((group, way, seed), run)


def case(pair: Pair) -> None:
    """The case study: people's labels against distillation, from few prompts to many.

    People label 30 % wrongly (`careless`); at the largest budget stand also labels
    without an error. `right` is a character a test question, 1 where the answer is.
    """
    columns = ["method", "prompts", "seed", "rows", "steps", "test", "shifted", "right"]
    recorder = Recorder(
        "case", [*columns, "seconds"], seeds=SEEDS, lora_rank=pair.track.lora_rank
    )

    def measure(chat: ChatModel, rows: int, steps: int, seconds: float) -> list:
        scored = evaluate.compare({"model": chat}, pair.test)["right"]
        shifted = pair.right(chat, pair.shifted)
        bits = "".join(str(int(r)) for r in scored)
        test = round(float(scored.mean()), 4)
        return [rows, steps, test, round(shifted, 4), bits, round(seconds)]

    def taught(rows: Sequence[dict], save: Path | None = None, **settings) -> list:
        chat, history, _ = pair.taught(rows, steps=CASE_STEPS, **settings)
        if save:
            chat.model.save_pretrained(save)
        return measure(chat, len(rows), CASE_STEPS, history.seconds)

    def distilled(prompts: int, seed: int) -> list:
        text = pair.text(prompts, seed)
        last = prompts == CASE_BUDGETS[-1]
        return taught(
            text,
            case_student(seed) if last else None,
            teacher=pair.signal(text, seed),
            soft_weight=0.5,
            seed=seed,
        )

    def labelled(prompts: int, seed: int, noise: float) -> list:
        examples = world.examples("train", prompts, seed, label_noise=noise)
        return taught([e.row() for e in examples], seed=seed)

    for name in ("teacher", "student"):
        chat = getattr(pair, name)
        recorder.run((name, 0, 0), partial(measure, chat, 0, 0, 0))
    most = CASE_BUDGETS[-1]
    for seed in SEEDS:
        for prompts in reversed(CASE_BUDGETS):
            recorder.run(
                ("distilled", prompts, seed), partial(distilled, prompts, seed)
            )
            run = partial(labelled, prompts, seed, CARELESS)
            recorder.run(("careless labels", prompts, seed), run)
        run = partial(labelled, most, seed, 0.0)
        recorder.run(("gold labels", most, seed), run)


def case_student(seed: int) -> Path:
    """Where `case` leaves its student of a seed, for `costs`; not in git."""
    return SCRATCH / f"case_student_{seed}"


def costs(pair: Pair) -> None:
    """What an answer costs: the teacher and the students of `case`, taking turns.

    A row a measure and number of users at a time (0: nobody asks). A model's column
    holds a list: a value a prompt (seconds), a repeat (under load), or only one. It is
    one run of minutes, on a machine that does nothing else, and is not resumed.

    Raises `FileNotFoundError` where `case` has not left its students.
    """
    if missing := [s for s in SEEDS if not case_student(s).exists()]:
        raise FileNotFoundError(
            f"the students of seed {', '.join(map(str, missing))} are not here: run "
            "`python -m helpers.record case` first, it trains and keeps them"
        )
    blank, tokenizer = type(pair.student.model), pair.student.tokenizer
    how = {"dtype": pair.track.dtype, "use_safetensors": True}
    chats = {"teacher": pair.teacher}
    for seed in SEEDS:
        model = blank.from_pretrained(case_student(seed), **how).eval()
        chats[f"student {seed}"] = ChatModel(model, tokenizer)
    prompts = [e.messages for e in pair.test[:COST_PROMPTS]]
    start, rows = time.perf_counter(), []

    def add(measure: str, users: int, found: Mapping[str, Sequence]) -> None:
        lists = [[round(float(v), 5) for v in found[name]] for name in chats]
        rows.append([measure, users, *lists])
        print(measure, users, flush=True)

    for count in (profile.parameters, profile.weight_bytes, profile.disk_bytes):
        found = {name: [count(chat.model)] for name, chat in chats.items()}
        add(count.__name__.replace("_", " "), 0, found)
    for users in (USERS[0], USERS[-1]):
        asked = {"prompts": prompts[:users], "batch_size": users}
        answers = {n: partial(generate.answer, *c, **asked) for n, c in chats.items()}
        peaks = {name: [profile.peak_memory(a)] for name, a in answers.items()}
        add("working bytes", users, peaks)
    add("seconds", 1, profile.latency(chats, prompts))
    add("seconds to first token", 1, profile.first_token(chats, prompts))
    load = profile.concurrency(chats, prompts, levels=USERS, repeats=REPEATS)
    for users, part in load.groupby("concurrency"):
        for measure in ("answers a second", "tokens a second", "p50", "p95"):
            add(measure, users, part.groupby("model")[measure].apply(list))
    minutes = round((time.perf_counter() - start) / 60, 1)
    more = {"seeds": SEEDS, "prompts": len(prompts), "minutes": minutes}
    card = run_card("python -m helpers.record costs", **more)
    write_results(RESULTS / "costs.json", ["measure", "users", *chats], rows, card)


RECORDS = {
    "budgets": budgets,
    "case": case,
    "costs": costs,
    "kinds": kinds,
    "knobs": knobs,
    "lora": lora,
    "quality": quality_of_data,
}


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m helpers.record", description=__doc__
    )
    parser.add_argument("name", choices=sorted(RECORDS))
    parser.add_argument("--threads", type=int, default=2)
    args = parser.parse_args()
    RECORDS[args.name](Pair(args.threads))
