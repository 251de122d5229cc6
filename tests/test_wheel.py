"""The package works when it is installed, from another folder and without a network."""

import ast
import os
import re
import shutil
import site
import subprocess
import sys
import tomllib
import venv
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PARTS = ("pyproject.toml", "README.md", "LICENSE", "LICENSE-prose", "helpers")
IMPORTED_AS = {"rouge-score": "rouge_score", "ipython": "IPython"}
# Come with those that are named; lm_eval is installed by who wants its benchmarks.
NOT_OURS = {"huggingface_hub", "jinja2", "traitlets", "helpers", "lm_eval"}


def run(*command: str | Path, **settings) -> str:
    done = subprocess.run(command, capture_output=True, text=True, **settings)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def python(tmp_path_factory) -> Path:
    """A clean environment with our wheel in it. The other packages are lent: to install
    torch alone takes minutes."""
    folder = tmp_path_factory.mktemp("installed")
    source = folder / "source"
    ignored = shutil.ignore_patterns("__pycache__", ".partial", "*.egg-info")
    for part in map(ROOT.joinpath, PARTS):
        copy = shutil.copytree if part.is_dir() else shutil.copy
        source.mkdir(exist_ok=True)
        copy(part, source / part.name, **{"ignore": ignored} if part.is_dir() else {})
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check"]
    offline = ["--no-deps", "--no-index", "--quiet"]
    run(*pip, "wheel", source, *offline, "--no-build-isolation", "-w", folder)
    (wheel,) = folder.glob("*.whl")
    venv.create(folder / "env", symlinks=os.name != "nt")
    scripts = "Scripts" if os.name == "nt" else "bin"
    python = folder / "env" / scripts / Path(sys.executable).name
    run(*pip, "--python", python, "install", wheel, *offline)
    where = "import sysconfig; print(sysconfig.get_path('purelib'))"
    packages = Path(run(python, "-c", where).strip())
    # Folders named in a .pth file are searched, but their own .pth files are not read:
    # the editable install of this checkout stays out.
    (packages / "lent.pth").write_text("\n".join(site.getsitepackages()) + "\n")
    return python


PROGRAM = """
import importlib, pathlib, pkgutil, sys
import helpers
assert pathlib.Path(helpers.__file__).is_relative_to(sys.prefix), helpers.__file__
from helpers import generate, labs, models, plots, tracks, world
track = tracks.load("tiny")
(example,) = world.examples("test", 1)
for load in (models.load_teacher, models.load_student):
    chat = load(track)
    assert generate.answer(*chat, [example.question()["messages"]])[0]
plots.use_style()
assert plots.png(plots.course_map([]))[:4] == b"\\x89PNG"
for number in range(1, 8):
    assert getattr(labs, f"lab{number:02}").__doc__
for module in pkgutil.walk_packages(helpers.__path__, "helpers."):
    if not module.name.endswith(("__main__", ".room")):
        importlib.import_module(module.name)
print("all there")
"""


@pytest.mark.slow
def test_an_installed_package_works_from_another_folder_offline(python, tmp_path):
    offline = {"HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1", "COURSE_TRACK": ""}
    clean = {
        k: v for k, v in os.environ.items() if not k.startswith("PYTHON")
    } | offline
    settings = {"cwd": tmp_path, "env": clean}
    assert run(python, "-c", PROGRAM, **settings).endswith("all there\n")
    for command in ("distill", "course", "labs", "grade", "record", "pretrain"):
        said = run(python, "-m", f"helpers.{command}", "--help", **settings)
        assert f"python -m helpers.{command}" in said, said


def imported(path: Path) -> set[str]:
    """The packages that a module imports, in functions too."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and not node.level:
            found.add(node.module.partition(".")[0])
    return found


def test_the_package_names_what_it_imports():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    named = {re.split(r"[\[><=]", line)[0] for line in project["dependencies"]}
    pinned = (ROOT / "requirements.txt").read_text("utf-8")
    known = {IMPORTED_AS.get(name, name) for name in named} | NOT_OURS
    for path in (ROOT / "helpers").rglob("*.py"):
        for module in imported(path) - sys.stdlib_module_names - known:
            raise AssertionError(f"{path.name} imports {module}: add it to pyproject")
    for name in named - {"ipython"}:
        assert re.search(rf"^{name}(\[\w+\])?==", pinned, re.M), f"{name} is not pinned"
