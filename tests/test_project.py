"""What a stranger meets first: the requirements, the pages and the commands."""

import os
import re
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PAGES = sorted(ROOT.glob("*.md"))
LINE = re.compile(
    r"(?P<name>[\w-]+)(\[\w+\])?==(?P<version>[\w.]+)( ; [^#]+?)? +# (?P<reason>\w.+)"
)


def requirements() -> dict[str, str]:
    lines = (ROOT / "requirements.txt").read_text(encoding="utf-8").splitlines()
    kept = [line for line in lines if line and not line.startswith("#")]
    matches = [LINE.fullmatch(line) for line in kept]
    loose = [line for line, match in zip(kept, matches, strict=True) if not match]
    assert not loose, f"write name==version  # reason, not {loose}"
    return {match["name"]: match["version"] for match in matches}


def test_every_requirement_is_pinned_exactly_and_has_a_reason():
    names = set(requirements())
    course = {"jupyterlab", "transformers", "torch", "bitsandbytes", "peft"}
    assert course | {"datasets", "matplotlib", "nbval"} <= names


def test_every_picture_in_a_page_has_alt_text():
    for page in PAGES:
        assert not re.search(r"!\[\s*\]\(", page.read_text(encoding="utf-8")), page.name


def test_make_without_a_target_lists_the_commands():
    said = subprocess.run(
        ["make"], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout
    targets = ("course", "lab", "check", "test", "test ONLY=04", "drift", "labs")
    targets += ("grade LAB=", "refresh", "weights", "clean")
    assert all(f"make {target}" in said for target in targets)


@pytest.mark.skipif(os.name == "nt", reason="the old Python is played by a script")
def test_an_old_python_is_refused_with_the_way_out(tmp_path):
    for name in ("Makefile", "requirements.txt", "pyproject.toml"):
        (tmp_path / name).write_bytes((ROOT / name).read_bytes())
    old = tmp_path / "python3.8"
    old.write_text('#!/bin/sh\n[ "$1" = --version ] && echo Python 3.8.20\nexit 1\n')
    old.chmod(0o755)
    run = subprocess.run(
        ["make", "course", f"PYTHON={old}"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )
    assert run.returncode != 0
    assert "needs Python 3.11 or newer" in run.stdout and "Python 3.8.20" in run.stdout
    assert not (tmp_path / ".venv").exists()
