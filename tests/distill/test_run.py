"""`python -m helpers.distill`: the whole command, killed and resumed, on foreign data,
and what it says when something is wrong."""

import io
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from contextlib import redirect_stdout
from functools import partial
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from helpers import evaluate, generate, world
from helpers.data import collate, encode_chat, read_chat
from helpers.distill import command, crew, distil, long_run, run
from helpers.generate import Reply
from helpers.models import load
from helpers.models.loading import PLAIN_TEMPLATE
from helpers.train import cache, fit
from helpers.train.cache_codec import probabilities
from tests.models.test_architectures import IDS, KIND, make

pytestmark = pytest.mark.slow

ROOT = Path(__file__).resolve().parents[2]
FEW = ["--prompts", "20", "--held-out", "5", "--steps", "4", "--max-new-tokens", "24"]
LITTLE = [*FEW, "--rank", "4"]


@pytest.fixture(autouse=True, scope="module")
def quick():
    """Measuring speed and intervals takes long, and is tested where it is written."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(run, "TIMED", 1)
        patch.setattr(run, "AT_ONCE", 1)
        few = partial(evaluate.report, resamples=20)
        patch.setattr(run.evaluate, "report", few)
        yield


@pytest.fixture(scope="module")
def pair(track, tokenizer, tmp_path_factory) -> list[str]:
    """The shipped student base as a teacher, which is quick, and a smaller student."""
    thin = tmp_path_factory.mktemp("models") / "thin"
    make(KIND["Llama"](vocab_size=len(tokenizer), **IDS), 0).save_pretrained(thin)
    tokenizer.save_pretrained(thin)
    return ["--track", "tiny", "--teacher", track.student, "--student", str(thin)]


@pytest.fixture(scope="module")
def finished(pair, tmp_path_factory) -> tuple[Path, str]:
    """A run from end to end, and what it said."""
    out, said = tmp_path_factory.mktemp("runs") / "out", io.StringIO()
    with redirect_stdout(said):
        assert command.main([*pair, *LITTLE, "--out", str(out)]) == 0
    return out, said.getvalue()


def weights(out: Path) -> dict[str, torch.Tensor]:
    return load_file(out / "student" / "model.safetensors")


def write(path: Path, rows: list[dict]) -> Path:
    lines = (json.dumps(row, ensure_ascii=False) for row in rows)
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


# ---------------------------------------------------------------- from end to end


def test_the_whole_command_leaves_a_student_and_a_report(finished):
    out, said = finished
    order = ["generate", "filter", "train", "evaluate", "Accuracy on test", "report.md"]
    assert [said.index(word) for word in order] == sorted(map(said.index, order))
    report = (out / "report.md").read_text()
    for part in ("## What was kept", "accuracy", "verified", "command: python -m"):
        assert part in report
    pictures = re.findall(r"!\[(.+?)\]\((.+?)\)", report)
    assert len(pictures) == 3
    for alt, picture in pictures:
        assert len(alt.split()) > 4 and (out / picture).stat().st_size > 1000
    page = (out / "report.html").read_text()
    assert page.count("data:image/png;base64,") == 3 and "<table" in page
    results = json.loads((out / "results.json").read_text())
    assert results["run_card"]["seed"] == 0 and results["run_card"]["versions"]
    assert {row[3] for row in results["rows"]} == {"teacher", "student base", "student"}
    # The numbers of the report are those of the results.
    value = next(r[5] for r in results["rows"] if r[3:5] == ["teacher", "accuracy"])
    assert f"| teacher | {value:.3f} [" in report


def test_the_student_is_the_one_that_distil_makes(finished, pair, track):
    """Trainer and `fit`, command and notebook: the same rows, the same weights.

    Up to rounding, which Adam enlarges where a gradient is nearly 0; steps are 1e-2.
    """
    out, _ = finished
    teacher, student = (load(pair[i], device="cpu") for i in (3, 5))
    how = {"steps": 4, "rank": 4, "teacher": teacher, "progress": False}
    taught, _, _ = distil(student, read_chat(out / "train.jsonl"), track, **how)
    there = taught.model.state_dict()
    for name, value in weights(out).items():
        torch.testing.assert_close(value, there[name], atol=2e-4, rtol=1e-4)


def test_a_run_killed_in_every_stage_loses_and_doubles_nothing(
    pair, tmp_path, monkeypatch, capsys
):
    options = [*pair, *LITTLE, "--signal", "cached"]
    monkeypatch.setattr(run, "cached", partial(crew.cached, shard_bytes=1000))
    whole, out = tmp_path / "whole", tmp_path / "out"
    assert command.main([*options, "--out", str(whole)]) == 0
    options += ["--out", str(out), "--resume"]
    asked, real = [], Reply

    def counted(*args, **kwargs):
        asked.append(1)
        if len(asked) == 7:
            raise KeyboardInterrupt
        return real(*args, **kwargs)

    def killed(*args, **kwargs):
        raise KeyboardInterrupt

    saved, save, step = [], cache.save, long_run._Progress.on_step_end

    def third(path, tensors):
        saved.append(path)
        return killed() if len(saved) == 3 else save(path, tensors)

    def second(self, args, state, control, **_):
        step(self, args, state, control)
        if state.global_step == 2:
            # The checkpoint of a later step, torn: it must not be taken for whole.
            (Path(args.output_dir) / "checkpoint-3").mkdir()
            killed()

    for place, name, broken in (
        ("helpers.generate.teachers", "Reply", counted),
        ("helpers.train.cache", "save", third),
        ("helpers.distill.long_run._Progress", "on_step_end", second),
        ("helpers.distill.long_run", "save", killed),
        ("helpers.distill.report", "write", killed),
    ):
        with monkeypatch.context() as patch:
            patch.setattr(f"{place}.{name}", broken)
            assert command.main(options) == 130, name
    assert "--resume" in capsys.readouterr().err
    assert 0 < len(read_chat(out / "answers.jsonl"))
    assert command.main(options) == 0

    for name in ("answers.jsonl", "train.jsonl"):
        one, two = ((way / name).read_text().splitlines() for way in (whole, out))
        assert sorted(one) == sorted(two)
    tokenizer = load(whole / "student", device="cpu").tokenizer
    batch = collate(list(encode_chat(read_chat(out / "train.jsonl"), tokenizer)), 0)
    tables = []
    for way in (whole, out):
        signal_ = cache.open_cache(way / "cache")
        tables.append(probabilities(signal_(batch), len(tokenizer)))
    torch.testing.assert_close(*tables, atol=1e-3, rtol=1e-3)
    one, two = weights(whole), weights(out)
    for name, value in one.items():
        torch.testing.assert_close(value, two[name], atol=1e-4, rtol=1e-3)
    history = json.loads((out / "training.json").read_text())["history"]
    assert history["step"] == [1, 2, 3, 4]
    capsys.readouterr()
    assert command.main(options) == 0
    assert "finished" in capsys.readouterr().out


def test_a_process_that_is_killed_goes_on(pair, tmp_path):
    """SIGKILL, wherever it hits once there are answers."""
    out = tmp_path / "out"
    options = [*pair, *LITTLE, "--out", str(out), "--resume"]
    threads = {f"{name}_NUM_THREADS": "1" for name in ("OMP", "MKL")}
    process = subprocess.Popen(
        [sys.executable, "-m", "helpers.distill", *options],
        cwd=ROOT,
        env=os.environ | threads,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    answers = out / "answers.jsonl"
    while process.poll() is None and not (answers.exists() and answers.stat().st_size):
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not (out / "results.json").exists()
    assert command.main(options) == 0
    ids = [row["id"] for row in read_chat(answers)]
    assert sorted(ids) == sorted(e.id for e in world.examples("train", 20))


# ---------------------------------------------------------------- foreign data


def byte_tokenizer() -> PreTrainedTokenizerFast:
    """Bytes: any language, and another vocabulary than the course's."""
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    words = {word: i for i, word in enumerate(["<pad>", "<end>", *letters])}
    made = Tokenizer(models.BPE(words, []))
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    return PreTrainedTokenizerFast(
        tokenizer_object=made,
        eos_token="<end>",
        bos_token="<end>",
        pad_token="<pad>",
        chat_template=PLAIN_TEMPLATE.replace("{{ bos_token }}", ""),
    )


TOWNS = "Köln Bonn Jena Gera Ulm Trier Fürth Celle Emden Hof".split()
OWN = [
    {"frage": f"Welche Nummer hat {town} in Liste {i}?", "antwort": f"{town} {i}"}
    for town in TOWNS
    for i in range(4)
]
KEYS = ["--prompt-key", "frage", "--answer-key", "antwort"]


@pytest.fixture(scope="module")
def foreign(tmp_path_factory):
    """A Qwen3 that ends its answers, and students of other architectures."""
    folder = tmp_path_factory.mktemp("foreign")
    tokenizer = byte_tokenizer()
    size = {"vocab_size": len(tokenizer), **IDS}
    for kind in ("Qwen3", "Phi-3", "GPT-2, no padding"):
        model = make(KIND[kind](**size), 0)
        if kind == "Qwen3":
            rows = [
                {
                    "messages": [
                        {"role": "user", "content": row["frage"]},
                        {"role": "assistant", "content": row["antwort"]},
                    ]
                }
                for row in OWN
            ]
            encoded = encode_chat(rows, tokenizer)
            how = {"steps": 40, "batch_size": 10, "learning_rate": 4e-3}
            fit(model, encoded, **how, progress=False)
        name = kind.partition(",")[0]
        model.save_pretrained(folder / name)
        tokenizer.save_pretrained(folder / name)
    return folder


def models_of(folder: Path, student: str) -> list[str]:
    found = ["--track", "tiny", "--teacher", str(folder / "Qwen3")]
    found += ["--student", str(folder / student), "--max-new-tokens", "16"]
    return [*found, "--set", "max_length=200", "batch_size=8", "--steps", "6"]


@pytest.mark.parametrize("way", ["live", "cached"])
def test_foreign_rows_and_architectures_pass(way, foreign, tmp_path, capsys):
    student = {"live": "Phi-3", "cached": "GPT-2"}[way]
    data, out = write(tmp_path / "own.jsonl", OWN), tmp_path / "out"
    options = ["--data", str(data), *KEYS, "--signal", way, "--out", str(out)]
    assert command.main([*models_of(foreign, student), *options]) == 0
    said = capsys.readouterr().out
    assert "Note" not in (out / "report.md").read_text()
    assert "Accuracy on test" in said
    results = json.loads((out / "results.json").read_text())
    metrics = {row[4] for row in results["rows"] if row[3] == "student"}
    expected = {"exact match", "token F1", "ROUGE-L", "NLL", "forward KL", "top-1"}
    assert expected <= metrics
    trained = {row["messages"][0]["content"] for row in read_chat(out / "train.jsonl")}
    assert trained and len(trained) <= 36, "four of forty are held out"
    assert (out / "cache").exists() == (way == "cached")


def test_another_vocabulary_means_text_and_no_gold_the_teachers_answers(
    foreign, track, tmp_path, capsys
):
    rows = [{"prompt": row["frage"]} for row in OWN]
    data, out = write(tmp_path / "own.jsonl", rows), tmp_path / "out"
    options = [*models_of(foreign, "GPT-2"), "--data", str(data), "--out", str(out)]
    options[options.index("--student") + 1] = track.student
    assert command.main(options) == 0
    said, report = capsys.readouterr().out, (out / "report.md").read_text()
    for text in (said, report):
        assert "learns the teacher's text, not its distribution" in text
        assert "ids differ" in text
        assert "No right answers were given" in text
    assert "the teacher's text alone" in report and not (out / "cache").exists()
    asked = {row["id"] for row in read_chat(out / "answers.jsonl")}
    held_out = {row["id"] for row in read_chat(out / "answers-test.jsonl")}
    assert held_out and not asked & held_out


def test_a_teacher_behind_an_address_gives_text(foreign, tmp_path, monkeypatch, capsys):
    """Its answers, to the held-out prompts too, are asked for once."""
    golds = {row["frage"]: row["antwort"] for row in OWN}
    asked = []

    class Api:
        def describe(self):
            return {"model": "far"}

        def replies(self, requests, sampling):
            for place, request in enumerate(requests):
                asked.append(request.messages[0]["content"])
                yield place, Reply(golds[asked[-1]], "stop", 5, 3)

    monkeypatch.setattr(generate.ApiTeacher, "of", lambda track: Api())
    monkeypatch.setenv("FAR_KEY", "secret-words")
    data, out = write(tmp_path / "own.jsonl", OWN), tmp_path / "out"
    options = [*models_of(foreign, "Phi-3"), "--data", str(data), *KEYS]
    options += ["--teacher-url", "https://host.example/v1", "--teacher-key", "FAR_KEY"]
    assert command.main([*options, "--out", str(out)]) == 0
    assert sorted(asked) == sorted(golds), "each prompt once"
    report = (out / "report.md").read_text()
    assert "shows its text and no distribution" in report
    results = json.loads((out / "results.json").read_text())["rows"]
    assert [r[5] for r in results if r[3:5] == ["teacher", "accuracy"]][0] == 1.0
    said = capsys.readouterr()
    files = [p.read_bytes() for p in out.rglob("*") if p.is_file()]
    assert not any(b"secret-words" in text for text in files)
    assert "secret-words" not in said.out + said.err


# ---------------------------------------------------------------- what goes wrong


def fails(options: list[str], capsys) -> str:
    assert command.main(options) == 2
    error = capsys.readouterr().err
    assert "Traceback" not in error
    return error


def test_expected_errors_are_one_line_and_code_2(pair, tmp_path, capsys):
    full = tmp_path / "full"
    full.mkdir()
    (full / "file").touch()
    foreign_keys = write(tmp_path / "own.jsonl", OWN)
    out = ["--out", str(tmp_path / "new")]
    for options, part in (
        (["--track", "huge", *out], "no track 'huge'"),
        ([*pair, "--out", str(full)], "--resume"),
        ([*pair, "--out", str(full), "--resume"], "no run.json"),
        ([*pair, *out, "--data", str(foreign_keys)], 'line 1: has "frage", "antwort"'),
        ([*pair, *out, "--data", str(tmp_path / "none.jsonl")], "no such file"),
        ([*pair, *out, "--set", "batch=3"], "fields of a track are accumulation"),
        ([*pair, *out, "--set", "batch_size=many"], "of type int"),
        ([*pair, *out, "--teacher-key", "sk-123secret"], "not the key itself"),
        ([*pair, *out, "--full", "--set", "quantise_student=true"], "4 bits"),
        (
            [*pair, *out, "--teacher-url", "https://x.example", "--signal", "live"],
            "API",
        ),
        (["--track", "tiny", "--student", str(full), *out], "holds no model"),
    ):
        error = fails(options, capsys)
        assert part in error and "secret" not in error
        assert not (tmp_path / "new" / "answers.jsonl").exists(), "before any work"


def test_data_that_cannot_be_read_leaves_no_folder(pair, tmp_path, capsys):
    out = tmp_path / "new"
    data = write(tmp_path / "own.jsonl", OWN)
    fails([*pair, "--out", str(out), "--data", str(data)], capsys)
    assert not out.exists()


def test_nothing_left_to_train_on_names_the_rule(pair, tmp_path, capsys):
    options = [*pair, *LITTLE, "--set", "max_length=5", "--out", str(tmp_path / "out")]
    assert "20 by 'too long'" in fails(options, capsys)


def test_a_resume_with_other_settings_names_the_difference(pair, tmp_path, capsys):
    out = tmp_path / "out"
    data = write(tmp_path / "own.jsonl", OWN)
    options = [*pair, *LITTLE, "--data", str(data), *KEYS, "--out", str(out)]
    started = run.Run(
        *(
            f(command.parser().parse_args(options))
            for f in (command.track_of, command.settings_of)
        ),
        out,
    )
    started.begin(resume=False)
    more = [*options, "--resume", "--seed", "1", "--learning-rate", "0.5"]
    error = fails(more, capsys)
    assert "seed was 0 and is now 1" in error
    assert "learning_rate was 0.01 and is now 0.5" in error
    write(data, OWN[:-1])
    assert "content of data" in fails([*options, "--resume"], capsys)
    # How the rows of a step are cut, and where, may change.
    write(data, OWN)
    other = [*options, "--set", "batch_size=8", "accumulation=4"]
    chosen = command.parser().parse_args(other)
    again = run.Run(command.track_of(chosen), command.settings_of(chosen), out)
    again.begin(resume=True)
    shutil.rmtree(out)


def test_options_are_checked_before_anything_is_loaded(capsys):
    for wrong in (["--steps", "0"], ["--soft-weight", "2"], ["--temperature", "-1"]):
        with pytest.raises(SystemExit) as stopped:
            command.main(["--out", "x", *wrong])
        assert stopped.value.code == 2
        assert wrong[0] in capsys.readouterr().err


def test_help_waits_for_no_library():
    code = (
        "import sys; from helpers.distill import command; "
        "command.parser().format_help(); "
        "print([name for name in ('torch', 'transformers') if name in sys.modules])"
    )
    said = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True
    )
    assert said.stdout.strip() == "[]"


def test_one_process_of_a_cpu_launch_is_told(monkeypatch):
    assert not command._cpu_launch()
    monkeypatch.setenv("ACCELERATE_USE_CPU", "True")
    monkeypatch.setenv("MASTER_PORT", "29500")
    assert command._cpu_launch()
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert not command._cpu_launch()
