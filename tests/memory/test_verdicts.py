"""What fits a GPU, and what to change where it does not."""

import dataclasses

import pytest
import torch

from helpers import memory, models, profile, tracks, train
from helpers.memory import ledger, verdicts

CARDS = [(name, card) for name in tracks.names() for card in tracks.cards(name)]


@pytest.mark.parametrize(("name", "card"), CARDS)
def test_every_track_fits_the_cards_that_it_has_settings_for(name, card):
    verdict = verdicts.fits(tracks.load(f"{name}-{card}"), card)
    assert verdict and not verdict.changes, str(verdict)
    assert str(verdict).endswith("it fits")


def test_the_tiny_track_fits_anything():
    assert verdicts.fits(tracks.load("tiny"), 1)


def test_settings_of_a_large_card_do_not_fit_a_small_one():
    verdict = verdicts.fits(tracks.load("gpu-80"), 8)
    assert not verdict
    text = str(verdict)
    assert "it does not fit; change, in this order:" in text
    assert text.index("1. ") < text.index("batch_size") < text.index("checkpointing")
    assert "smaller models" not in text


def test_what_is_named_to_change_makes_it_fit():
    track = tracks.load("gpu-qwen3-8b-80")
    verdict = verdicts.fits(track, 16)
    said = ", ".join(change.setting for change in verdict.changes)
    settings = dict(setting.split(" = ") for setting in said.split(", "))
    values = {"True": True, "cached": "cached"}
    settings = {k: values.get(v) or int(v) for k, v in settings.items()}
    changed = dataclasses.replace(track, **settings)
    assert not verdict and verdicts.fits(changed, 16)
    assert changed.batch_size * changed.accumulation == 8, "the gradient is the same"
    assert all(change.saves > 0 for change in verdict.changes)


def test_a_model_too_large_for_all_changes_is_said_to_be():
    track = dataclasses.replace(
        tracks.load("gpu-8"), teacher="meta-llama/Llama-3.1-405B-Instruct"
    )
    assert str(verdicts.fits(track, 24)).endswith("choose smaller models")


def test_the_teacher_of_an_api_takes_no_memory_here():
    assert list(verdicts.stages(tracks.load("api-8"))) == [
        verdicts.LEARNS,
        verdicts.ANSWERS,
    ]
    stages = verdicts.stages(tracks.load("gpu-8"))
    assert list(stages) == [verdicts.ASKED, verdicts.LEARNS, verdicts.ANSWERS]
    assert stages[verdicts.LEARNS].parts["teacher"] > 0


def test_a_live_teacher_counts_and_a_cached_one_does_not():
    track = tracks.load("gpu-8")
    live = verdicts.stages(track)[verdicts.LEARNS].total
    track = dataclasses.replace(track, teacher_signal="cached")
    cached = verdicts.stages(track)[verdicts.LEARNS].total
    teacher = ledger.shape(track.teacher).parameters * track.dtype.itemsize
    assert live - cached == teacher


# ---------------------------------------------------------------- out of memory


class Full:
    """A teacher's signal that finds no memory left."""

    def __call__(self, batch):
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")


def rows(count=8, length=64):
    ids = list(range(2, 2 + length))
    return [{"input_ids": ids, "labels": [-100] * 48 + ids[48:]}] * count


def numbered(error):
    lines = str(error).splitlines()
    return [line for line in lines if line[:2] in ("1.", "2.", "3.", "4.")]


def test_out_of_memory_names_three_things_in_order(small_model):
    small_model.to(torch.bfloat16)
    model = models.add_lora(small_model, 4)
    said = numbered(verdicts.shortage(model, rows(), 8, accumulation=2))
    assert [line.split(" = ")[0] for line in said] == [
        "1. batch_size",
        "2. checkpointing",
        "3. quantise_student",
    ]
    assert "batch_size = 4, accumulation = 4" in said[0]
    assert all("(saves " in line and " GiB)" in line for line in said)


def test_out_of_memory_does_not_name_what_is_done_already(small_model, teacher):
    models.checkpoint(small_model)
    said = numbered(verdicts.shortage(small_model, rows(), 1, teacher=teacher.model))
    assert [line.split(" = ")[0] for line in said] == [
        "1. teacher_signal",
        "2. lora_rank",
        "3. quantise_student",
    ]


def test_a_training_that_runs_out_of_memory_says_what_to_change(small_model):
    settings = {"steps": 1, "batch_size": 8, "learning_rate": 1e-3, "progress": False}
    with pytest.raises(verdicts.MemoryShortage, match="1. batch_size = 4") as caught:
        train.fit(small_model, rows(), teacher=Full(), **settings)
    assert isinstance(caught.value, torch.OutOfMemoryError)
    assert "Tried to allocate" in str(caught.value.__cause__)
    assert not small_model.training, "left as fit always leaves it"


def test_names_of_the_ledger_are_found_in_profile():
    assert memory.fits is verdicts.fits and memory.training is ledger.training
    assert all(hasattr(profile, name) for name in profile.__all__)


def test_part_of_the_card_is_left_free():
    assert verdicts.fits(tracks.load("gpu-8"), 8).usable == int(0.85 * 8 * 2**30)
