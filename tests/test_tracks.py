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
    tracks.setup(seed=2)
    assert threads == 1 and torch.get_num_threads() == 2
    assert torch.rand(1).item() != one
    assert torch.are_deterministic_algorithms_enabled()


def test_setup_prints_one_block_without_machine_details(restored, capsys):
    track = tracks.setup(seed=3)
    printed = capsys.readouterr().out
    assert track == tracks.load("tiny")
    assert len(printed.splitlines()) == 2
    assert re.search(r"python 3\.\d+ · torch \d+\.\d+\.\d+ ·", printed)  # no "+cpu"
    assert "track tiny · device cpu · float32 · 2 threads · seed 3" in printed
    assert "/" not in printed and "\\" not in printed
    tracks.setup(seed=3)
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
        tracks._card(tracks.load("tiny"), 0, 2)
