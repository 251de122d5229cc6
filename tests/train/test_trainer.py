"""The Trainer for long runs: the same training as `fit`, and what it adds."""

import copy
import math

import pytest
import torch
from datasets import Dataset
from transformers import TrainerCallback, TrainingArguments

import helpers.train.trainer
from helpers.data import collate
from helpers.losses import SparseTargets, distillation_loss
from helpers.models import add_lora
from helpers.train import LiveTeacher, fit
from tests.damage import damage, notices
from tests.train.test_loop import ROWS, V, gpt2, llama, same, weights

SETTINGS = {"soft_weight": 0.7, "temperature": 2.0, "kind": "jsd"}


@pytest.fixture(scope="session")
def trainer():
    return helpers.train.trainer


@pytest.fixture
def arguments(tmp_path):
    def make(**changes) -> TrainingArguments:
        settings = {
            "output_dir": str(tmp_path / "run"),
            "max_steps": 20,
            "seed": 0,
            "per_device_train_batch_size": 4,
            "per_device_eval_batch_size": 4,
            "learning_rate": 1e-2,
            "weight_decay": 0.0,
            "warmup_steps": 1,
            "lr_scheduler_type": "cosine",
            "optim": "adamw_torch",
            "save_strategy": "no",
            "logging_steps": 1,
            "report_to": [],
            "disable_tqdm": True,
            "use_cpu": True,
        }
        return TrainingArguments(**{**settings, **changes})

    return make


def like_fit(student, teacher, accumulation=1, rows=ROWS):
    fit(
        student,
        rows,
        teacher=teacher,
        steps=20,
        batch_size=4,
        accumulation=accumulation,
        learning_rate=1e-2,
        progress=False,
        **SETTINGS,
    )
    return weights(student)


@pytest.mark.parametrize("make", [llama, gpt2])
@pytest.mark.parametrize("accumulation", [1, 2, 3])
def test_same_weights_as_fit_after_20_steps(trainer, arguments, make, accumulation):
    """24 rows, so that an epoch ends in the middle of a group."""
    rows = [*ROWS, *ROWS[:2]]
    student = make()
    trainer.DistillationTrainer(
        student,
        arguments(gradient_accumulation_steps=accumulation),
        train_dataset=Dataset.from_list(rows),
        teacher=llama(1),
        **SETTINGS,
    ).train()
    expected = like_fit(make(), llama(1), accumulation, rows)
    for name, value in weights(student).items():
        torch.testing.assert_close(value, expected[name], atol=2e-5, rtol=1e-4)


def test_lora_and_a_signal(trainer, arguments):
    torch.manual_seed(0)
    student = add_lora(llama(), 2)
    other = copy.deepcopy(student)
    signal = LiveTeacher(llama(1))
    trainer.DistillationTrainer(
        student, arguments(), train_dataset=ROWS, teacher=signal, **SETTINGS
    ).train()
    expected = like_fit(other, signal)
    for name, value in weights(student).items():
        torch.testing.assert_close(value, expected[name], atol=2e-5, rtol=1e-4)


@pytest.mark.slow
def test_a_killed_run_resumes_to_the_same_weights(trainer, arguments):
    class Kill(TrainerCallback):
        def on_step_end(self, args, state, control, **_):
            if state.global_step == 7:
                raise KeyboardInterrupt

    def run(folder: str, callbacks=(), **train):
        student = gpt2(dropout=0.3)  # resuming must restore the chance as well
        run = trainer.DistillationTrainer(
            student,
            arguments(save_strategy="steps", save_steps=3, output_dir=folder),
            train_dataset=ROWS,
            teacher=llama(1),
            callbacks=list(callbacks),
        )
        run.train(**train)
        return weights(student)

    folder = arguments().output_dir
    whole = run(folder + "-whole")
    with pytest.raises(KeyboardInterrupt):
        run(folder, [Kill()])
    resumed = run(folder, resume_from_checkpoint=True)
    assert same(whole, resumed)


def test_it_logs_what_a_loss_hides(trainer, arguments):
    student, teacher = llama(), llama(1)
    batch = collate(ROWS, 0)
    labels = batch["labels"]
    keep = labels[:, 1:] != -100
    with torch.no_grad():
        given = {k: v for k, v in batch.items() if k != "labels"}
        q = student(**given).logits[:, :-1][keep].log_softmax(-1)
        p = teacher(**given).logits[:, :-1][keep]
    run = trainer.DistillationTrainer(
        student,
        arguments(max_steps=1, per_device_train_batch_size=len(ROWS)),
        train_dataset=ROWS,
        eval_dataset=ROWS,
        teacher=teacher,
        temperature=1.0,
    )
    before = run.evaluate()
    run.train()
    first = run.state.log_history[0]
    agreement = (p.argmax(-1) == q.argmax(-1)).float().mean().item()
    entropy = -(q.exp() * q).sum(-1).mean().item()
    for found, prefix in ((before, "eval_"), (first, "")):
        assert found[prefix + "agreement"] == pytest.approx(agreement)
        assert found[prefix + "entropy"] == pytest.approx(entropy, rel=1e-4)
        hard, soft = found[prefix + "hard_loss"], found[prefix + "soft_loss"]
        assert found[prefix + "loss"] == pytest.approx(0.5 * (hard + soft), rel=1e-4)


def test_evaluation_weighs_every_token_alike(trainer, arguments):
    student, teacher = llama(), llama(1)
    batch = collate(ROWS, 0)
    labels = batch.pop("labels")
    with torch.no_grad():
        logits = student(**batch).logits, labels, teacher(**batch).logits
        expected = distillation_loss(*logits, **SETTINGS).item()
    for size in (1, 3, 8):
        run = trainer.DistillationTrainer(
            student,
            arguments(per_device_eval_batch_size=size),
            eval_dataset=Dataset.from_list(ROWS),
            teacher=teacher,
            **SETTINGS,
        )
        assert run.evaluate()["eval_loss"] == pytest.approx(expected, rel=1e-5)


def test_mass_on_the_cached_tokens_is_logged(trainer, arguments):
    def two_tokens(batch):
        n = int((batch["labels"][:, 1:] != -100).sum())
        return SparseTargets(
            torch.tensor([[1, 2]]).expand(n, -1), torch.full((n, 2), math.log(0.45))
        )

    run = trainer.DistillationTrainer(
        llama(),
        arguments(max_steps=60),
        train_dataset=ROWS,
        teacher=two_tokens,
        soft_weight=1.0,
        temperature=1.0,
    )
    run.train()
    masses = [line["mass"] for line in run.state.log_history if "mass" in line]
    assert len(masses) == 60
    assert masses[0] < 0.5 and masses[-1] == pytest.approx(0.9, abs=0.05)


def test_a_loss_that_is_not_finite_stops_and_names_the_rows(trainer, arguments):
    def signal(batch):
        n = int((batch["labels"][:, 1:] != -100).sum())
        marked = (batch["input_ids"][:, 0] == V - 1).any()
        return torch.full((n, V), torch.nan if marked else 0.0)

    rows = [dict(row) for row in ROWS]
    rows[5]["input_ids"] = [V - 1, *rows[5]["input_ids"][1:]]
    student = llama()
    run = trainer.DistillationTrainer(
        student, arguments(), train_dataset=rows, teacher=signal
    )
    with pytest.raises(FloatingPointError, match=r"rows \[[^\]]*\b5\b"):
        run.train()
    assert all(torch.isfinite(value).all() for value in weights(student).values())


def test_what_cannot_be_trained_is_refused(trainer, arguments):
    with pytest.raises(ValueError, match="add_lora"):
        trainer.DistillationTrainer(
            llama().requires_grad_(False), arguments(), train_dataset=ROWS
        )
    student = llama()
    with pytest.raises(ValueError, match="deepcopy"):
        trainer.DistillationTrainer(
            student, arguments(), train_dataset=ROWS, teacher=student
        )


def test_without_a_teacher_it_is_fine_tuning(trainer, arguments):
    student = llama()
    trainer.DistillationTrainer(student, arguments(), train_dataset=ROWS).train()
    expected = like_fit(llama(), None)
    for name, value in weights(student).items():
        torch.testing.assert_close(value, expected[name], atol=2e-5, rtol=1e-4)


def test_train_offers_it_too():
    from helpers.train import DistillationTrainer

    assert DistillationTrainer is helpers.train.trainer.DistillationTrainer
    with pytest.raises(ImportError):
        from helpers.train import Nothing  # noqa: F401


def accumulates_like_fit(trainer, arguments):
    test_same_weights_as_fit_after_20_steps(trainer, arguments, llama, 2)


PLANTED = {
    "bug 10: a mean of means": (
        "num_items=num_items, **self.settings",
        "num_items=None, **self.settings",
        accumulates_like_fit,
    ),
    "another order of rows": (
        "self.settings = batch_size * micro_batches, seed, group_by_length",
        "self.settings = batch_size * micro_batches, seed + 1, group_by_length",
        accumulates_like_fit,
    ),
    "every epoch the same": (
        "        self.epoch = epoch",
        "        pass",
        accumulates_like_fit,
    ),
    "evaluation as a mean over batches": (
        "sums = {name: value * len(logits)",
        "sums = {name: value * 4",
        test_evaluation_weighs_every_token_alike,
    ),
}


@pytest.mark.parametrize("test", dict.fromkeys(test for *_, test in PLANTED.values()))
def test_a_copy_without_a_bug_passes(test, arguments):
    test(damage(helpers.train.trainer), arguments)


@pytest.mark.parametrize("bug", PLANTED)
def test_a_planted_bug_is_noticed(bug, arguments):
    old, new, test = PLANTED[bug]
    broken = damage(helpers.train.trainer, old, new)
    assert notices(lambda module: test(module, arguments), broken)
