"""The stages of `python -m helpers.distill`, with the functions of the notebooks:

    generate -> filter -> cache -> train -> evaluate -> report

Everything is in one folder. A killed run goes on there: every stage keeps what it has
done, and the folder knows the settings it was begun with.
"""

import gc
import json
import math
import time
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
import torch
from datasets import Dataset

from .. import data, evaluate, models, profile, quality, tracks
from ..data.rows import DataError
from ..evaluate.scoring import Question, item_of
from ..generate.api import ApiTeacher
from ..generate.teachers import Teacher
from ..models.loading import ChatModel
from ..models.vocabulary import TemplateMismatch, VocabularyMismatch
from ..tracks import Track
from ..train.cache import open_cache
from ..train.loop import History
from ..train.signals import Signal
from .crew import Crew, Replay, answers, cached
from .long_run import distil_long, shares
from .material import Material, helpdesk, own, short_enough
from .settings import RunError, Settings, check_same, facts, name_of

STEPS = 600  # by default, for the helpdesk
PASSES, LEAST = 3, 60  # for other data: times over the rows, but so many steps
TIMED, AT_ONCE = 20, 64  # prompts by which latency, and throughput, are measured


@dataclass
class Outcome:
    """All that the report is written from."""

    track: Track
    settings: Settings
    material: Material
    notes: list[str]
    signal: str
    funnel: pd.DataFrame
    history: History
    trained: int
    report: evaluate.Report
    costs: pd.DataFrame
    minutes: dict[str, float]
    card: dict


class Run:
    """One run in its folder, as one of its processes sees it. Call it once."""

    def __init__(self, track: Track, settings: Settings, folder: str | Path):
        self.crew = Crew(track)
        self.track, self.settings = self.crew.place(track), settings
        self.folder, self.notes = Path(folder), []
        self.minutes: dict[str, float] = {}
        self.teacher: ChatModel | Teacher | None = None
        if not self.crew.main:  # the main process warns for all
            warnings.simplefilter("ignore")

    def __call__(self, *, resume: bool = False) -> Outcome | None:
        """All stages. None where there is nothing to report: on every process but the
        main one, and where the run was finished before."""
        tracks.settle(self.track, self.settings.seed)
        threads = torch.get_num_threads()
        self.say(tracks.card(self.track, self.settings.seed, threads))
        self.crew.first(lambda: self.begin(resume))
        if (self.folder / "results.json").exists():
            return self.say("this run is finished")
        material = self.crew.main_first(self.material)
        with self.stage("generate"):
            # First all that can fail: the teacher's answers may take a night, or money.
            student = self.crew.main_first(self.look_at_student)
            self.teacher = self.crew.main_first(self.load_teacher)
            signal, vocab = self.signal(student)
            said = self.ask(material.prompts, "answers")
            heard = self.hear(material)
        with self.stage("filter"):
            funnel = self.filter(material, said, student)
            questions = self.questions(material, heard, student)
            rows = data.encode_chat(funnel.kept, student.tokenizer)
        if signal == "cached":
            with self.stage("cache"):
                how = {"vocab": vocab, "temperature": self.settings.temperature}
                how["batch_size"] = self.track.batch_size
                cached(self.crew, self.teacher, rows, self.folder / "cache", **how)
        if signal != "live":
            self.teacher = None
            gc.collect()
            torch.cuda.empty_cache()
        with self.stage("train"):
            if self.track.device != "cpu":
                student = models.load_student(self.track)
            targets = self.targets(signal, student)
            taught, history, trained = self.train(student, rows, targets, vocab)
        self.crew.leave()
        if not self.crew.main:
            return None
        with self.stage("evaluate"):
            measured = self.evaluate(student, taught, questions, heard)
        table = pd.concat([material.table, funnel.table], ignore_index=True)
        notes = [*material.notes, *self.notes]
        what = (self.track, self.settings, material, notes, signal, table, history)
        return Outcome(*what, trained, *measured, self.minutes, self.card())

    # ------------------------------------------------------------ the folder

    def say(self, text: str) -> None:
        if self.crew.main:
            print(text, flush=True)

    def note(self, text: str) -> None:
        """Something that the reader of output and report must know."""
        self.notes.append(text)
        self.say(text)

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        self.say(f"{name} ...")
        start = time.perf_counter()
        yield
        minutes = (time.perf_counter() - start) / 60
        self.minutes[name] = self.minutes.get(name, 0) + minutes
        if self.crew.main:
            self.write()

    def write(self) -> None:
        content = {
            "settings": facts(self.track, self.settings),
            "minutes": self.minutes,
        }
        data.write_json(self.folder / "run.json", content)

    def begin(self, resume: bool) -> None:
        """Take the folder, empty or with this very run in it."""
        self.check()
        record = self.folder / "run.json"
        if not self.folder.exists() or not any(self.folder.iterdir()):
            self.material()  # before there is a folder to clean up
            self.folder.mkdir(parents=True, exist_ok=True)
            return self.write()
        if not resume:
            raise RunError(
                f"{self.folder} is not empty: --resume goes on with the run in it; or "
                "choose another folder"
            )
        if not record.exists():
            raise RunError(
                f"{self.folder} holds no run to go on with: no {record.name}"
            )
        before = json.loads(record.read_text(encoding="utf-8"))
        self.minutes = before["minutes"]
        now = json.loads(json.dumps(facts(self.track, self.settings)))
        check_same(before["settings"], now, self.folder)

    def check(self) -> None:
        """Settings that do not go together."""
        shares(self.track, self.crew.size)
        if self.settings.full and self.track.quantise_student:
            raise RunError("weights in 4 bits cannot all be trained: leave out --full")
        if self.track.teacher_url and self.settings.signal not in (None, "text"):
            raise RunError(
                f"--signal {self.settings.signal}: an API shows its text and no "
                "distribution; leave --signal out"
            )

    def card(self) -> dict:
        cuda = self.track.device.startswith("cuda")
        named = torch.cuda.get_device_name() if cuda else self.track.device
        return {
            "seed": self.settings.seed,
            "device": named,
            "processes": self.crew.size,
            "minutes": round(sum(self.minutes.values()), 1),
            "track": self.track.name,
            "teacher": name_of(self.track.teacher),
            "student": name_of(self.track.student),
        }

    # ------------------------------------------------------------ generate, filter

    def material(self) -> Material:
        s = self.settings
        if s.data is None:
            return helpdesk(s.prompts, s.held_out, s.seed)
        how = {"prompt_key": s.prompt_key, "answer_key": s.answer_key}
        return own(s.data, s.test, **how, held_out=s.held_out, min_f1=s.min_f1)

    def look_at_student(self) -> ChatModel:
        """The student, away from the accelerator, whose memory is the teacher's now."""
        if self.track.device == "cpu":
            return models.load_student(self.track)
        how = {"device": "cpu", "dtype": self.track.dtype}
        return models.load(self.track.student, **how)

    def load_teacher(self) -> ChatModel | Teacher:
        if self.track.teacher_url:
            return ApiTeacher.of(self.track)
        return models.load_teacher(self.track)

    def ask(self, prompts: Sequence[dict], name: str) -> list[dict]:
        return answers(
            self.crew,
            self.teacher,
            prompts,
            self.folder / f"{name}.jsonl",
            batch_size=self.track.generate_batch_size,
            max_new_tokens=self.track.max_new_tokens,
            seed=self.settings.seed,
        )

    def hear(self, material: Material) -> dict[str, list[dict]]:
        """The teacher's answers to what is held out, where they must be kept: they are
        the reference, or cost money."""
        if material.gold and isinstance(self.teacher, ChatModel):
            return {}
        found = {}
        for split, questions in material.held_out.items():
            prompts = [_prompt(q, place) for place, q in enumerate(questions)]
            found[split] = self.ask(prompts, f"answers-{split}")
        return found

    def filter(
        self, material: Material, said: Sequence[dict], student: ChatModel
    ) -> quality.Funnel:
        """What the student is trained on; `train.jsonl`, and the others with reasons in
        `dropped.jsonl`."""
        rules = {"too long": self.fitting(student), **material.rules}
        funnel = quality.funnel(said, rules)
        if self.crew.main:
            data.write_chat(self.folder / "train.jsonl", funnel.kept)
            data.write_chat(self.folder / "dropped.jsonl", funnel.dropped)
        if not funnel.kept:
            table = funnel.table[funnel.table["dropped"] > 0]
            out = ", ".join(
                f"{n} by {r!r}"
                for r, n in zip(table["rule"], table["dropped"], strict=True)
            )
            raise DataError(
                f"no answer of the teacher is left to train on: {len(said)} answers, "
                f"{out or 'nothing'} dropped; read the reasons in "
                f"{self.folder / 'dropped.jsonl'}"
            )
        return funnel

    def fitting(self, student: ChatModel) -> quality.Rule:
        longest = {"max_length": self.track.max_length}
        tokenizer = student.tokenizer
        return short_enough(lambda m: data.tokenize_chat(tokenizer, m, **longest))

    def questions(
        self, material: Material, heard: Mapping[str, list[dict]], student: ChatModel
    ) -> dict[str, list[Question]]:
        """What is measured on, each with a right answer or the teacher's."""
        found, rule = {}, self.fitting(student)
        for split, questions in material.held_out.items():
            if not material.gold:
                of_form = {
                    n: material.rules[n]
                    for n in ("cut off", "empty", "loops", "refusals")
                }
                questions = quality.funnel(heard[split], of_form).kept
                self.note(
                    "No right answers were given for the held-out prompts: the "
                    f"reference is what the teacher answered to {len(questions)} of "
                    f"{len(heard[split])}, after the filter for form. Scores say how "
                    "near a model is to the teacher, not how right it is."
                )
            found[split] = [q for q in questions if not rule(_answered(q))]
            if long := len(questions) - len(found[split]):
                self.note(
                    f"{long} held-out rows of {split} are longer than max_length = "
                    f"{self.track.max_length} tokens, and are left out."
                )
            if not found[split]:
                raise DataError(
                    f"no held-out row of {split} is left to measure on; raise "
                    "max_length (--set max_length=...), or give others in --test"
                )
        return found

    # ------------------------------------------------------------ signal, training

    def signal(self, student: ChatModel) -> tuple[str, int | None]:
        """live, cached or text, and the columns of logits that both models share."""
        api = bool(self.track.teacher_url)
        wanted = self.settings.signal or ("text" if api else self.track.teacher_signal)
        if api:
            self.note(
                "The teacher is an API that shows its text and no distribution: the "
                "student learns the text, without a cache."
            )
        if self.track.fused_head:
            self.note("fused_head is not used: the loss is computed from logits.")
        if api or wanted == "text":
            return "text", None
        try:
            return wanted, models.check_pair(student, self.teacher)
        except (VocabularyMismatch, TemplateMismatch) as error:
            self.note(
                "The student learns the teacher's text, not its distribution, for the "
                f"two cannot be compared token by token: {error}."
            )
            return "text", None

    def targets(self, signal: str, student: ChatModel) -> object:
        if signal == "cached":
            return open_cache(self.folder / "cache", tokenizer=student.tokenizer)
        return self.teacher.model if signal == "live" else None

    def train(
        self,
        student: ChatModel,
        rows: Dataset,
        targets: Signal | torch.nn.Module | None,
        vocab: int | None,
    ) -> tuple[ChatModel, History, int]:
        s, track = self.settings, self.track
        a_step = track.batch_size * track.accumulation
        passes = max(LEAST, math.ceil(PASSES * len(rows) / a_step))
        return distil_long(
            student,
            rows,
            track,
            self.folder,
            self.crew,
            teacher=targets,
            vocab=vocab,
            steps=s.steps or (passes if s.data else STEPS),
            soft_weight=s.soft_weight,
            temperature=s.temperature,
            full=s.full,
            seed=s.seed,
        )

    # ------------------------------------------------------------ evaluate

    def evaluate(
        self,
        student: ChatModel,
        taught: ChatModel,
        questions: dict[str, list[Question]],
        heard: Mapping[str, list[dict]],
    ) -> tuple[evaluate.Report, pd.DataFrame]:
        teacher = self.teacher
        if self.track.teacher_url:
            teacher = Replay(row for rows in heard.values() for row in rows)
        elif teacher is None:
            teacher = models.load_teacher(self.track)
        longest = {"max_new_tokens": self.track.max_new_tokens}
        size = {"batch_size": self.track.generate_batch_size}
        names = {"teacher": teacher, "student base": student, "student": taught}
        report = evaluate.report(names, questions, **longest, **size)
        del names["student base"]
        local = {n: m for n, m in names.items() if isinstance(m, ChatModel)}
        prompts = [item_of(q).messages for q in next(iter(questions.values()))]
        seconds = profile.latency(local, prompts[:TIMED], **longest)
        speed = profile.throughput(local, prompts[:AT_ONCE], **longest, **size)
        costs = {
            name: {
                "parameters": profile.parameters(model),
                "MB of weights": profile.weight_bytes(model) / 1e6,
                "p50, ms": 1e3 * float(pd.Series(seconds[name]).quantile(0.5)),
                "p95, ms": 1e3 * float(pd.Series(seconds[name]).quantile(0.95)),
                "answers a second": speed[name],
            }
            for name, (model, _) in local.items()
        }
        table = pd.DataFrame(costs).T
        if len(table) == 2:
            table.loc["teacher / student"] = table.loc["teacher"] / table.loc["student"]
        return report, table


def _prompt(question: Question, place: int) -> dict:
    item = item_of(
        {**question, "answer": ""} if isinstance(question, dict) else question
    )
    return {"id": item.id, "messages": item.messages}


def _answered(question: Question) -> dict:
    item = item_of(question)
    gold = item.gold if isinstance(item.gold, str) else item.gold[0]
    return {"messages": [*item.messages, {"role": "assistant", "content": gold}]}
