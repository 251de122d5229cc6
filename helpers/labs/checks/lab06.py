"""Lab 06: which planted bug does a learner's test expose, and is the script mended?

(Learners: this file tells what the lab asks you to find. Read it afterwards.)

A test is run on the script, on right versions of it, and on versions with a single bug.
It exposes the bug of the one version it fails on.
"""

import contextlib
import copy
import io
import types
from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch.nn.utils.rnn import pad_sequence

from ... import data, losses
from ...course import toy
from .base import Mistake, NotAnswered, close, question, that

Test = Callable[[type], object]


class Right:
    """The methods of the script, right, made of the course's own functions."""

    squared = masked = True

    def collate(self, rows):
        return data.collate(rows, self.pad_token_id)

    def align(self, logits, labels):
        return logits[:, :-1], losses.shift_and_mask(labels)[0]

    def match(self, student_logits, teacher_logits):
        width = min(student_logits.shape[-1], teacher_logits.shape[-1])
        return student_logits[..., :width], teacher_logits[..., :width]

    def loss(self, student_logits, teacher_logits, targets, num_items=None):
        student, teacher = self.match(student_logits, teacher_logits)
        mask, T = targets != -100, self.temperature
        count = mask.sum() if num_items is None else num_items
        kept = mask if self.masked else torch.ones_like(mask)
        soft = losses.token_divergence(student[kept], teacher[kept], temperature=T)
        soft = soft.sum() * (T**2 if self.squared else 1)
        hard = F.cross_entropy(student[mask], targets[mask], reduction="sum")
        return ((1 - self.soft_weight) * hard + self.soft_weight * soft) / count

    @torch.no_grad()
    def ask(self, batch):
        inputs = {name: batch[name] for name in ("input_ids", "attention_mask")}
        return self.teacher.eval()(**inputs).logits

    def remember(self, rows, size=32):
        width, self.signals = max(len(row["labels"]) for row in rows), []
        for start in range(0, len(rows), size):
            logits = self.ask(self.collate(rows[start : start + size]))
            self.signals += F.pad(logits, (0, 0, 0, width - logits.shape[1]))

    def recall(self, numbers, length):
        return torch.stack([self.signals[i] for i in numbers])[:, :length]

    def step(self, batches):
        self.student.train()
        self.optimiser.zero_grad()
        kept = [losses.shift_and_mask(batch["labels"])[1].sum() for batch, _ in batches]
        total = 0.0
        for batch, teacher_logits in batches:
            inputs = {name: batch[name] for name in ("input_ids", "attention_mask")}
            logits, targets = self.align(self.student(**inputs).logits, batch["labels"])
            teacher_logits, _ = self.align(teacher_logits, batch["labels"])
            loss = self.loss(logits, teacher_logits, targets, sum(kept))
            loss.backward()
            total += loss.item()
        self.optimiser.step()
        return total


METHODS = tuple(name for name in vars(Right) if not name.startswith("_"))


class Loops(Right):
    """As right, written position by position; the teacher keeps the mode it had."""

    def collate(self, rows):
        width = max(len(row["input_ids"]) for row in rows)
        batch = {"input_ids": [], "attention_mask": [], "labels": []}
        for row in rows:
            n = len(row["input_ids"])
            rest = width - n
            batch["input_ids"].append(row["input_ids"] + [self.pad_token_id] * rest)
            batch["labels"].append(row["labels"] + [-100] * rest)
            batch["attention_mask"].append([1] * n + [0] * rest)
        return {name: torch.tensor(lists) for name, lists in batch.items()}

    def loss(self, student_logits, teacher_logits, targets, num_items=None):
        T, w = self.temperature, self.soft_weight
        width = min(student_logits.shape[-1], teacher_logits.shape[-1])
        total, count = 0 * student_logits.double().nan_to_num().sum(), 0
        for b, t in (targets != -100).nonzero().tolist():
            s = student_logits[b, t, :width].double()
            p = (teacher_logits[b, t, :width].double() / T).softmax(-1)
            log_q = (s / T).log_softmax(-1)
            total = total - (1 - w) * s.log_softmax(-1)[targets[b, t]]
            total = total + w * T * T * (torch.xlogy(p, p) - p * log_q).sum()
            count += 1
        return total / (count if num_items is None else num_items)

    @torch.no_grad()
    def ask(self, batch):
        training, _ = self.teacher.training, self.teacher.eval()
        logits = self.teacher(batch["input_ids"], batch["attention_mask"]).logits
        self.teacher.train(training)
        return logits

    def remember(self, rows, size=32):
        self.signals = {i: self.ask(self.collate([r]))[0] for i, r in enumerate(rows)}

    def recall(self, numbers, length):
        found = [self.signals[i] for i in numbers]
        found = pad_sequence(found, batch_first=True, padding_value=7.0)
        return F.pad(found, (0, 0, 0, max(0, length - found.shape[1])))[:, :length]


class Other(Loops):
    """As right once more: KL as cross-entropy less entropy, one way back for a step."""

    def loss(self, student_logits, teacher_logits, targets, num_items=None):
        student, teacher = self.match(student_logits, teacher_logits)
        keep, T = targets.flatten() != -100, self.temperature
        s, t = (z.flatten(0, -2)[keep] for z in (student, teacher))
        p, y = (t / T).softmax(-1), targets.flatten()[keep]
        cross = F.cross_entropy(s / T, p, reduction="sum")
        soft = T * T * (cross - torch.special.entr(p).sum())
        hard = F.cross_entropy(s, y, reduction="sum")
        mixed = (1 - self.soft_weight) * hard + self.soft_weight * soft
        return mixed / (num_items or keep.sum())

    @torch.no_grad()
    def ask(self, batch):
        teacher = copy.deepcopy(self.teacher).eval()
        return teacher(batch["input_ids"], batch["attention_mask"]).logits

    def step(self, batches):
        self.student.train()
        count = sum((batch["labels"][:, 1:] != -100).sum() for batch, _ in batches)
        total = 0
        for batch, theirs in batches:
            ours = self.student(batch["input_ids"], batch["attention_mask"]).logits
            ours, targets = self.align(ours, batch["labels"])
            theirs, _ = self.align(theirs, batch["labels"])
            total = total + self.loss(ours, theirs, targets, num_items=count)
        self.optimiser.zero_grad()
        total.backward()
        self.optimiser.step()
        return total.detach()


class Bug(NamedTuple):
    name: str  # for the figure at the end
    question: int
    kept: tuple[str, ...]  # methods of the script in which the bug is
    flags: dict[str, bool]
    source: str


BUGS = {
    "end": Bug("end token hidden", 1, ("collate",), {}, "trl#6357"),
    "shift": Bug("no shift", 1, ("align",), {}, "AReaL#1729, ms-swift#8436"),
    "mask": Bug("mask unused", 2, (), {"masked": False}, "Liger-Kernel#974"),
    "square": Bug("T² missing", 2, (), {"squared": False}, "keras-io#869, trl#5731"),
    "columns": Bug("zero columns", 2, ("match",), {}, "torchtune#2119, LMOps#286"),
    "mode": Bug("teacher in train mode", 3, ("ask",), {}, "trl#5862"),
    "cache": Bug("cache on the wrong row", 3, ("remember", "recall"), {},
                 "caches indexed by position"),
    "mean": Bug("mean of means", 3, ("step",), {}, "transformers#34191, trl#4719"),
}  # fmt: skip


def version(
    script: type, kind: type = Right, kept: Sequence[str] = (), **flags
) -> type:
    """The script with the methods of `kind`, except those in `kept`."""
    methods = {name: getattr(kind, name) for name in METHODS if name not in kept}
    return type("Distiller", (script,), methods | flags)


def single(script: type, bug: str) -> type:
    """A right version but for one bug."""
    return version(script, Right, BUGS[bug].kept, **BUGS[bug].flags)


# ---------------------------------------------------------------- learners' tests


def failure(test: Test, distiller: type) -> Exception | None:
    """What a test raises on a version; None where it passes."""
    torch.manual_seed(0)
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            test(distiller)
    except NotImplementedError:
        raise
    except Exception as error:
        return error
    return None


FORBIDDEN = {"getsource", "getsourcelines", "inspect", "co_code", "co_consts", "dis"}
FORBIDDEN |= {"__code__", "__mro__", "__bases__", "__dict__", "vars"}


def _names(code: types.CodeType) -> set[str]:
    inner = [c for c in code.co_consts if isinstance(c, types.CodeType)]
    return set(code.co_names).union(*map(_names, inner))


def _said(error: Exception, test: Test) -> str:
    """The error as a learner reads it, with the line of the test."""
    line, frames = "", error.__traceback__
    while frames:
        if frames.tb_frame.f_code is test.__code__:
            number = frames.tb_lineno - test.__code__.co_firstlineno + 1
            line = f" in line {number} of the test"
        frames = frames.tb_next
    text = str(error).strip().split("\n")[0]
    return f"{type(error).__name__}{line}{': ' * bool(text)}{text}"


def exposed(test: Test, script: type, number: int, others: bool = False) -> str:
    """The key of the one bug of question `number` that a test exposes, or `Mistake`."""
    if seen := _names(test.__code__) & FORBIDDEN:
        raise Mistake(
            f"it uses {sorted(seen)[0]}: a test looks at what the code does, not at "
            "how it is written"
        )
    rights = [Right, Loops, Other][: 3 if others else 2]
    errors = [failure(test, version(script, kind)) for kind in rights]
    on_script = failure(test, script)
    if all(errors) and on_script:
        raise Mistake(
            "it fails on right implementations, too, so it would fail always. There "
            f"it said: {_said(errors[0], test)}"
        )
    if any(errors):
        error = next(filter(None, errors))
        raise Mistake(
            "it fails on a right implementation that is written in another way: it "
            "demands more than the docstrings promise. There it said: "
            f"{_said(error, test)}"
        )
    if on_script is None:
        raise Mistake(
            "it passes on the script, so it exposes nothing. Which inputs would make "
            "a wrong method give a different result?"
        )
    found = [key for key in BUGS if failure(test, single(script, key))]
    here = [key for key in found if BUGS[key].question == number]
    if len(here) > 1:
        raise Mistake(
            f"it fails for {len(here)} different bugs, so it cannot tell which one is "
            "there. Choose inputs at which only one property is at stake"
        )
    if not here and found:
        raise Mistake(
            f"it exposes a bug of question {BUGS[found[0]].question}: put it there"
        )
    if not here:
        raise Mistake(
            "it fails on the script, but on no version with a single bug: it needs "
            "several bugs at once, or looks at something else than the results"
        )
    return here[0]


def _tests(
    script: type, tests: Sequence[Test], number: int, at_least: int, others: bool
) -> None:
    _unchanged(script)
    found, verdicts, answered = {}, [], 0
    for test in tests:
        name = test.__name__
        try:
            bug = exposed(test, script, number, others)
        except NotImplementedError:
            verdicts.append(f"{name}: not written yet")
            continue
        except Mistake as mistake:
            verdicts.append(f"{name}: {mistake}")
        else:
            if bug in found:
                verdicts.append(f"{name}: it exposes the same bug as {found[bug]}")
            else:
                found[bug] = name
                verdicts.append(f"{name}: exposes a bug of its own")
        answered += 1
    if not answered:
        raise NotImplementedError
    if len(found) < at_least:
        raise Mistake(
            f"{len(found)} of {at_least} bugs exposed\n  " + "\n  ".join(verdicts)
        )
    for bug, name in found.items():
        print(f"{name} exposes a bug that shipped: {BUGS[bug].source}")


HINT = "Write a test that passes on a right Distiller and fails on this one."


@question("Question 1", HINT)
def q1_tests(script, *tests, at_least=1, others=False):
    """Tests of `collate` and `align`."""
    _tests(script, tests, 1, at_least, others)


@question("Question 2", HINT)
def q2_tests(script, *tests, at_least=1, others=False):
    """Tests of `match` and `loss`."""
    _tests(script, tests, 2, at_least, others)


@question("Question 3", HINT)
def q3_tests(script, *tests, at_least=1, others=False):
    """Tests of `ask`, `remember`, `recall` and `step`."""
    _tests(script, tests, 3, at_least, others)


def trial(test: Test, script: type) -> None:
    """Print where a test passes: on right versions, on the script."""
    for name, versions in {
        "right versions": [version(script, kind) for kind in (Right, Loops)],
        "the script": [script],
    }.items():
        errors = list(filter(None, (failure(test, v) for v in versions)))
        print(f"{name}: {_said(errors[0], test) if errors else 'passes'}")


# ---------------------------------------------------------------- the mended script


def _build(distiller: type, words=12, more=0, dropout=0.0, **settings):
    settings = {"learning_rate": 0.1, "pad_token_id": 0} | settings
    student, teacher = toy.Bigram(words, 1), toy.Bigram(words + more, 2, dropout)
    return distiller(student, teacher, **settings)


def _ends_are_learnt(distiller):
    batch = _build(distiller, pad_token_id=toy.END).collate(toy.rows(4))
    return ((batch["labels"] == toy.END).sum(1) == 1).all()


def _predicts_the_next(distiller):
    labels = torch.tensor([[-100, -100, 5, 6, 1]])
    logits = torch.arange(5.0).view(1, 5, 1).expand(1, 5, 12)  # each tells its place
    kept, targets = _build(distiller).align(logits, labels)
    places = kept[..., 0][targets != -100]
    return places.tolist() == [1.0, 2.0, 3.0]


def _logits(*shape, seed=0):
    return 2 * torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def _masked_does_not_count(distiller):
    targets = torch.tensor([[-100, 4, 5, -100]])
    ours, theirs = _logits(1, 4, 12), _logits(1, 4, 12, seed=1)
    other = ours.clone()
    other[:, [0, 3]] = _logits(1, 2, 12, seed=2)
    each = _build(distiller, temperature=1.0)
    return torch.allclose(each.loss(ours, theirs, targets).float(),
                          each.loss(other, theirs, targets).float())  # fmt: skip


def _pull(distiller, temperature):
    ours = _logits(1, 4, 12).requires_grad_()
    each = _build(distiller, soft_weight=1.0, temperature=temperature)
    loss = each.loss(ours, _logits(1, 4, 12, seed=1), torch.full((1, 4), 3))
    loss.backward()
    return ours.grad.norm()


def _pull_keeps_its_size(distiller):
    return 0.5 < _pull(distiller, 100.0) / _pull(distiller, 50.0) < 2


def _spare_columns_do_not_count(distiller):
    targets, each = torch.full((1, 4), 3), _build(distiller, temperature=1.0)
    ours, theirs = _logits(1, 4, 12), _logits(1, 4, 15, seed=1)
    plain = each.loss(ours, theirs[..., :12], targets).float()
    turned = each.loss(theirs, ours, targets).float()
    return (
        torch.allclose(each.loss(ours, theirs, targets).float(), plain)
        and torch.allclose(each.loss(theirs[..., :12], ours, targets).float(), turned)
    )  # fmt: skip


def _asked_twice_says_the_same(distiller):
    each = _build(distiller, dropout=0.5)
    batch = Right.collate(each, toy.rows(4))
    return torch.equal(each.ask(batch), each.ask(batch))


def _recalls_the_row(distiller):
    each, rows = _build(distiller), toy.rows(9, seed=3)
    each.remember(rows, size=4)
    for i, row in enumerate(rows):
        truth = each.teacher.eval()(torch.tensor([row["input_ids"]])).logits
        found = each.recall([i], truth.shape[1])
        if found.shape != truth.shape or not torch.allclose(found, truth):
            return False
    return True


def _steps(distiller, pieces, seed=0, **settings):
    """The student's table after two steps, and the losses."""
    each, rows = _build(distiller, **settings), toy.rows(6, seed=seed)
    # Adam would blow up the rounding of a gradient that is nearly zero.
    each.optimiser = torch.optim.SGD(each.student.parameters(), lr=1.0)
    batches = []
    for numbers in pieces:
        batch = Right.collate(each, [rows[i] for i in numbers])
        batches.append((batch, Right.ask(each, batch)))
    found = [float(each.step(batches)) for _ in range(2)]
    return each.student.table.weight.detach(), found


WHOLE, CUT, ONES = [range(6)], [[0, 1], [2, 3, 4, 5]], [[i] for i in range(6)]


def _pieces_add_up(distiller):
    tables = [_steps(distiller, p)[0] for p in (WHOLE, CUT, ONES)]
    return all(torch.allclose(tables[0], t, atol=1e-3) for t in tables[1:])


STILL = {
    "end": (_ends_are_learnt, "with pad_token_id equal to the end token, the end of an "
            "answer has no label: hide padding by its place, not by its id"),
    "shift": (_predicts_the_next, "logits are not scored against the token that "
              "follows: the logits at t belong to the label at t + 1"),
    "mask": (_masked_does_not_count, "the loss changes with logits at positions that "
             "have no target: does the soft part know the mask?"),
    "square": (_pull_keeps_its_size, "the soft gradient shrinks as the temperature "
               "grows: soft_weight then means something else at each temperature"),
    "columns": (_spare_columns_do_not_count, "columns that only one model has change "
                "the loss: what does a zero mean before the softmax?"),
    "mode": (_asked_twice_says_the_same, "asked twice, a teacher with dropout gives "
             "two answers: in which mode is it?"),
    "cache": (_recalls_the_row, "a row gets the signal of another one: in which order "
              "are signals kept, in which are they looked up?"),
    "mean": (_pieces_add_up, "six rows in one batch and in pieces give different "
             "steps: by what is each piece's sum divided?"),
}  # fmt: skip


def _unchanged(script: type) -> None:
    """The class must be the script of the lab, with all its bugs."""
    for test, _ in STILL.values():
        try:
            mended = test(script)
        except Exception:
            mended = False
        that(not mended, "the script was changed: restore its cell from the lab")


def _mended(theirs: type, bugs: Sequence[str], *methods: str) -> type:
    """Their methods, with all others right; raises where a bug is still there."""
    distiller = version(theirs, Right, methods)
    for bug in bugs:
        test, message = STILL[bug]
        that(test(distiller), message)
    return distiller


ELSE = "The planted bugs are gone, but something else has changed"


@question("Question 4, rows", "Mend `collate` and `align`.")
def q4_rows(theirs: type, seed: int = 0) -> None:
    """`collate` and `align` against right ones."""
    distiller = _mended(theirs, ("end", "shift"), "collate", "align")
    for pad in (0, toy.END):
        each = _build(distiller, pad_token_id=pad)
        rows = toy.rows(5, seed=seed)
        batch, truth = each.collate(rows), Right.collate(each, rows)
        that(set(batch) == set(truth), f"{ELSE}: `collate` gives {sorted(batch)}")
        for name, value in truth.items():
            close(batch[name], value, otherwise=f"{ELSE}: {name} of `collate`")
        logits = _logits(*truth["labels"].shape, 12)
        kept, targets = each.align(logits, truth["labels"])
        expected = Right.align(each, logits, truth["labels"])
        mask = targets != -100
        close(
            kept[mask], expected[0][expected[1] != -100], otherwise=f"{ELSE}: `align`"
        )
        close(targets[mask], expected[1][expected[1] != -100])


@question("Question 4, loss", "Mend `match` and `loss`.")
def q4_loss(theirs: type, seed: int = 0) -> None:
    """`match` and `loss` against the course's loss."""
    bugs = ("mask", "square", "columns")
    distiller = _mended(theirs, bugs, "match", "loss")
    targets = torch.tensor([[-100, 4, 5, 1], [3, 1, -100, -100]])
    for temperature, weight, more, count in (
        (1.0, 0.5, 0, None),
        (3.0, 0.3, 2, 11),
        (0.7, 1.0, 0, torch.tensor(5)),
        (2.0, 0.0, 1, None),
    ):
        settings = {"temperature": temperature, "soft_weight": weight}
        each = _build(distiller, **settings)
        ours = _logits(2, 4, 12, seed=seed)
        theirs_ = _logits(2, 4, 12 + more, seed=seed + 1)
        args = ours, theirs_, targets
        truth = _build(version(theirs), **settings)
        plain = _build(version(theirs, squared=False), **settings)
        swapped = _build(version(theirs), **settings | {"soft_weight": 1 - weight})
        close(
            each.loss(*args, count),
            truth.loss(*args, count),
            {
                "`num_items` is not used: with it, divide by it": truth.loss(*args),
                "soft_weight weighs the hard part: exchange the two": swapped.loss(
                    *args, count
                ),
                "T² multiplies the hard part as well: it belongs to the KL": (
                    temperature**2 * plain.loss(*args, count)
                ),
                "the KL is turned round: KL(teacher || student) is asked for": (
                    _turned(truth, *args, count)
                ),
            },
            otherwise=f"{ELSE}: `loss` at temperature {temperature}, soft_weight "
            f"{weight}, num_items {count}",
        )


def _turned(truth, ours, theirs, targets, count):
    ours, theirs = truth.match(ours, theirs)
    mask, T, w = targets != -100, truth.temperature, truth.soft_weight
    soft = losses.token_divergence(
        ours[mask], theirs[mask], "reverse_kl", temperature=T
    ).sum()
    hard = F.cross_entropy(ours[mask], targets[mask], reduction="sum")
    count = mask.sum() if count is None else count
    return ((1 - w) * hard + w * T * T * soft) / count


@question("Question 4, teacher", "Mend `ask` and `remember`.")
def q4_teacher(theirs: type, seed: int = 0) -> None:
    """`ask`, `remember` and `recall`, and that the student's mode is left alone."""
    methods = "ask", "remember", "recall"
    distiller = _mended(theirs, ("mode", "cache"), *methods)
    each = _build(distiller, dropout=0.5)
    each.student.train()
    batch = Right.collate(each, toy.rows(5, seed=seed))
    logits = each.ask(batch)
    that(not logits.requires_grad, "the teacher's logits have a gradient: no_grad?")
    that(
        each.student.training,
        "asking the teacher has put the student into eval mode: its dropout is off",
    )
    close(logits, Right.ask(each, batch), otherwise=f"{ELSE}: `ask`")
    rows = toy.rows(7, seed=seed + 1)
    each.remember(rows, size=3)
    numbers = [4, 0, 6]
    some = Right.collate(each, [rows[i] for i in numbers])
    found, truth = each.recall(numbers, some["labels"].shape[1]), Right.ask(each, some)
    mask = some["attention_mask"].bool()
    that(
        found.shape == truth.shape,
        f"`recall` gives {tuple(found.shape)}, and {tuple(truth.shape)} was expected",
    )
    close(found[mask], truth[mask], otherwise=f"{ELSE}: `recall` after `remember`")


@question("Question 4, step", "Mend `step`.")
def q4_step(theirs: type, seed: int = 0) -> None:
    """The student after two steps against that of a right `step`."""
    distiller = _mended(theirs, ("mean",), "step")
    right = version(theirs, Right)
    for pieces in (WHOLE, CUT, ONES):
        for settings in ({}, {"soft_weight": 1.0, "temperature": 3.0}):
            table, found = _steps(distiller, pieces, seed, **settings)
            expected, values = _steps(right, pieces, seed, **settings)
            close(found, values, otherwise=f"{ELSE}: the loss that `step` returns",
                  rtol=1e-3)  # fmt: skip
            close(table, expected, otherwise=f"{ELSE}: the student after two steps",
                  atol=1e-3)  # fmt: skip
    each = _build(distiller)
    each.student.eval()
    batch = Right.collate(each, toy.rows(2))
    each.step([(batch, Right.ask(each, batch))])
    that(each.student.training, "`step` must train the student in train mode")


# ---------------------------------------------------------------- the figure


def curves(
    script: type, theirs: type, steps: int = 40
) -> dict[str, tuple[list[float], float]]:
    """For a right version and each single bug: the losses that it prints, and the KL
    from the teacher's next tokens to the student's at the end, in nats, on new rows.

    A bug that is still in `theirs` has a number for a name.
    """
    words, found = 20, {}
    versions = {"right": version(script)}
    for number, (key, bug) in enumerate(BUGS.items(), 1):
        name = bug.name if _is_mended(theirs, key) else f"bug {number}"
        versions[name] = single(script, key)
    teacher = toy.Bigram(words, 2)
    answers = _answers(teacher, 96)
    new = Right.collate(_build(version(script)), _answers(teacher, 64, seed=1))
    targets, mask = losses.shift_and_mask(new["labels"])
    for name, kind in versions.items():
        torch.manual_seed(0)
        each = _build(kind, words, 4, 0.3, pad_token_id=toy.END, learning_rate=0.3)
        with torch.no_grad():
            each.teacher.table.weight[:words, :words] = teacher.table.weight
        printed = each.fit(answers, steps, 16, 4)
        with torch.no_grad():
            ours = each.student.eval()(new["input_ids"]).logits[:, :-1][mask]
            theirs = teacher.eval()(new["input_ids"]).logits[:, :-1][mask]
        gap = losses.token_divergence(ours, theirs).mean().item()
        found[name] = [float(value) for value in printed], gap
    return found


def _is_mended(theirs: type, bug: str) -> bool:
    """Whether `theirs` has this bug no more, its other methods right or not."""
    try:
        _mended(theirs, [bug], *(BUGS[bug].kept or ("match", "loss")))
    except Exception:
        return False
    return True


def _answers(teacher: toy.Bigram, count: int, seed: int = 0) -> list[dict]:
    """Rows whose answers the teacher drew, until it ended them itself."""
    torch.manual_seed(seed)
    rows = []
    for prompt in torch.randint(2, teacher.table.num_embeddings, (count, 3)).tolist():
        answer, last = [], prompt[-1]
        while last != toy.END and len(answer) < 12:
            chances = teacher.table.weight[last].detach().softmax(-1)
            last = int(torch.multinomial(chances, 1))
            answer.append(last)
        rows.append(toy.row(prompt, [word for word in answer if word != toy.END]))
    return rows


__all__ = ["NotAnswered", "curves", "exposed", "trial"]
