"""Tracks: the right entry, clear refusals, and a process that repeats itself."""

import dataclasses
import os
import random
import re
from pathlib import Path

import numpy as np
import pytest
import torch

from helpers import tracks


@pytest.fixture
def restored(monkeypatch):
    """The default track; puts back what `setup` changes for the whole process."""
    monkeypatch.delenv("COURSE_TRACK", raising=False)
    before = dict(os.environ)
    threads = torch.get_num_threads()
    yield
    os.environ.clear()
    os.environ.update(before)
    torch.set_num_threads(threads)
    torch.use_deterministic_algorithms(False)


def write(folder, text):
    path = folder / "tracks.toml"
    path.write_text(text, encoding="utf-8")
    return path


def test_tiny_is_the_default(monkeypatch):
    monkeypatch.delenv("COURSE_TRACK", raising=False)
    assert tracks.load().name == "tiny"
    monkeypatch.setenv("COURSE_TRACK", "")
    assert tracks.load().name == "tiny"


def test_the_variable_chooses_and_an_argument_wins(monkeypatch):
    monkeypatch.setenv("COURSE_TRACK", "gpu")
    assert tracks.load().name == "gpu"
    assert tracks.load("tiny").name == "tiny"


def test_an_unknown_track_lists_the_choices(monkeypatch):
    monkeypatch.setenv("COURSE_TRACK", "huge")
    with pytest.raises(tracks.TrackError, match="'huge'.*tiny, gpu.*api"):
        tracks.load()


@pytest.mark.parametrize("name", tracks.names())
def test_every_track_is_complete(name):
    track = tracks.load(name)
    assert track.batch_size > 0 and track.lora_rank > 0 and track.max_new_tokens > 0
    assert 0 < track.learning_rate < 1
    assert track.device in ("cuda", "mps", "cpu")


def test_tiny_is_shipped_local_and_on_the_processor():
    track = tracks.load("tiny")
    weights = Path(tracks.__file__).parent / "weights"
    assert (track.teacher, track.student) == (
        str(weights / "teacher"),
        str(weights / "student"),
    )
    assert (track.device, track.dtype) == ("cpu", torch.float32)
    assert track.offline


@pytest.mark.parametrize("name", ["gpu", "api"])
def test_the_others_need_a_network(name):
    assert not tracks.load(name).offline


def test_an_endpoint_makes_a_track_of_shipped_models_online():
    track = dataclasses.replace(tracks.load("tiny"), teacher_url="http://host/v1")
    assert not track.offline


def test_the_key_itself_is_never_in_the_settings():
    track = tracks.load("api")
    assert track.teacher_url.endswith("/v1")
    assert re.fullmatch("[A-Z_]+", track.teacher_key)  # a variable's name


@pytest.mark.parametrize(
    ("cuda", "mps", "device", "dtype"),
    [
        (True, True, "cuda", torch.bfloat16),
        (False, True, "mps", torch.bfloat16),
        (False, False, "cpu", torch.float32),
    ],
)
def test_the_gpu_track_takes_the_best_device(monkeypatch, cuda, mps, device, dtype):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: cuda)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: mps)
    monkeypatch.setattr(tracks, "gpu_gib", lambda: 16.0)
    assert (tracks.load("gpu").device, tracks.load("gpu").dtype) == (device, dtype)
    assert tracks.load("tiny").device == "cpu"


def test_a_track_cannot_be_changed():
    with pytest.raises(dataclasses.FrozenInstanceError):
        tracks.load("tiny").batch_size = 1


def test_misspelt_and_missing_fields_are_named(tmp_path):
    path = write(tmp_path, '[mine]\nteacher = "t"\nstudent = "s"\nbatchsize = 1\n')
    with pytest.raises(tracks.TrackError, match=r"tracks\.toml, \[mine\].*batchsize"):
        tracks.load("mine", path)
    path = write(tmp_path, '[mine]\nteacher = "t"\nstudent = "s"\nbatch_size = 1\n')
    with pytest.raises(tracks.TrackError, match="missing.*learning_rate"):
        tracks.load("mine", path)


def test_setup_repeats_every_source_of_chance(restored):
    def draw():
        tracks.setup(seed=7)
        return random.random(), np.random.rand(), torch.rand(1).item()

    assert draw() == draw()


def test_setup_uses_the_seed_and_the_threads_it_is_given(restored):
    tracks.setup(seed=1, threads=1)
    one, threads = torch.rand(1).item(), torch.get_num_threads()
    tracks.setup(seed=2, threads=2)
    assert threads == 1 and torch.get_num_threads() == 2
    assert torch.rand(1).item() != one
    assert torch.are_deterministic_algorithms_enabled()


def test_setup_prints_one_block_without_machine_details(restored, capsys):
    track = tracks.setup(seed=3, threads=2)
    printed = capsys.readouterr().out
    assert track == tracks.load("tiny")
    assert len(printed.splitlines()) == 2
    assert re.search(r"python 3\.\d+ · torch \d+\.\d+\.\d+ ·", printed)  # no "+cpu"
    assert "track tiny · device cpu · float32 · 2 threads · seed 3" in printed
    assert "/" not in printed and "\\" not in printed
    tracks.setup(seed=3, threads=2)
    assert capsys.readouterr().out == printed


def test_setup_keeps_the_tiny_track_off_the_network(restored):
    import huggingface_hub

    tracks.setup()
    assert os.environ["HF_HUB_OFFLINE"] == "1"
    assert os.environ["HF_HUB_DISABLE_TELEMETRY"] == "1"
    assert huggingface_hub.is_offline_mode()  # although it was imported before


def test_a_package_that_is_missing_is_named(monkeypatch):
    monkeypatch.setattr(tracks, "PACKAGES", ("no-such-package",))
    with pytest.raises(tracks.TrackError, match="no-such-package.*make course"):
        tracks.card(tracks.load("tiny"), 0, 2)


# ---------------------------------------------------------------- cards

CARDS = [name for name in tracks.names() if tracks.cards(name)]


@pytest.mark.parametrize(
    ("gib", "card"),
    [(0, 8), (4, 8), (7.6, 8), (11.8, 8), (14.6, 16), (22.5, 24), (44, 24), (79, 80)],
)
def test_the_gpu_that_is_there_chooses_the_settings(monkeypatch, gib, card):
    monkeypatch.setattr(tracks, "gpu_gib", lambda: gib)
    track = tracks.load("gpu")
    assert (track.name, track.card) == ("gpu", card)
    assert track == dataclasses.replace(tracks.load(f"gpu-{card}"), name="gpu")


@pytest.mark.parametrize("name", CARDS)
def test_every_card_of_a_track_takes_the_same_rows_in_a_step(name):
    assert tracks.cards(name) == [8, 16, 24, 80]
    found = [tracks.load(f"{name}-{card}") for card in tracks.cards(name)]
    assert len({t.batch_size * t.accumulation for t in found}) == 1
    assert (
        len({(t.teacher, t.student, t.max_length, t.learning_rate) for t in found}) == 1
    )
    assert all(t.teacher_signal in ("live", "cached") for t in found)
    assert [t.card for t in found] == tracks.cards(name)


def test_a_card_without_settings_is_refused(monkeypatch):
    for name in ("gpu-12", "tiny-8", "gpu-qwen3-9b"):
        with pytest.raises(tracks.TrackError, match=f"'{name}'.*gpu-8.*card"):
            tracks.load(name)


def test_tiny_is_the_same_on_every_machine(monkeypatch):
    monkeypatch.setattr(tracks, "gpu_gib", lambda: 80.0)
    assert tracks.load("tiny").card == 0


def test_setup_names_the_card(restored, monkeypatch, capsys):
    monkeypatch.setenv("COURSE_TRACK", "gpu-16")
    tracks.setup()
    assert (
        "track gpu-16, settings for a card of 16 GB · device" in capsys.readouterr().out
    )


def test_memory_of_the_gpu_is_asked_of_torch(monkeypatch):
    class Card:
        total_memory = 8 * 2**30

    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda number: Card)
    assert tracks.gpu_gib() == 8
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    assert tracks.gpu_gib() == 0
