"""Commands that start a program with nothing around it: bubblewrap, or `unshare`.

The program gets namespaces of its own: no network, no other processes, and of the disk
only Python, the helpers, read-only, and a scratch folder in memory.
"""

import functools
import os
import shlex
import shutil
import site
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parents[3]
KINDS = ("bubblewrap", "unshare", "limits")  # strongest first; "limits": no namespaces
WORK = "/tmp/work"  # the scratch folder inside
PROCESSES = 400  # in the namespace, where the kernel keeps this number; 301 at least
SYSTEM = ("/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64", "/nix/store")
SYSTEM += ("/etc/ld.so.cache", "/etc/passwd", "/etc/group", "/etc/localtime")
SYSTEM += ("/etc/fonts", "/etc/alternatives")


class NoSandbox(RuntimeError):
    """No sandbox can be started; the message says what to do."""


def describe(kind: str) -> str:
    """One sentence on what a kind of sandbox keeps out, for the summary."""
    if kind == "limits":
        return (
            "limits alone (time, memory, processes, file size): this machine offers no "
            "namespaces, so submissions could read files and use the network. Grade "
            "only people you trust, or install bubblewrap"
        )
    return (
        f"namespaces by {kind}: no network, no other processes, a scratch folder in "
        "memory, nothing else of the disk but Python and the helpers, read-only; "
        "limits on time, memory, processes and files"
    )


@functools.cache
def strongest() -> str:
    """The strongest kind that works here, found by trying each.

    Raises `NoSandbox` on Windows, where none of them exists.
    """
    if os.name != "posix":
        raise NoSandbox("grading needs Linux or macOS; on Windows run it under WSL")
    return next(kind for kind in KINDS if kind == "limits" or _works(kind))


def _works(kind: str) -> bool:
    with tempfile.TemporaryDirectory() as folder:
        try:
            program = command(kind, [sys.executable, "-c", "pass"], folder, 1)
            silent = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.DEVNULL)
            tried = subprocess.run(program, env=environment(WORK), timeout=60, **silent)
            return tried.returncode == 0
        except (NoSandbox, OSError, subprocess.TimeoutExpired):
            return False


def environment(work: str) -> dict[str, str]:
    """Nothing of the caller's environment, in which keys may stand."""
    return {
        "PATH": "/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin",
        "LANG": "C.UTF-8",
        "HOME": work,
        "TMPDIR": work,
        "PYTHONPATH": str(ROOT),
        "PYTHONDONTWRITEBYTECODE": "1",
        "MPLBACKEND": "agg",
        "COURSE_TRACK": "tiny",
        "HF_HUB_OFFLINE": "1",
        "TOKENIZERS_PARALLELISM": "false",
        "CUDA_VISIBLE_DEVICES": "",
        # One thread: a process with running OpenMP threads cannot be copied.
        "OMP_NUM_THREADS": "1",
        "OMP_THREAD_LIMIT": "1",
        "MKL_NUM_THREADS": "1",
    }


def command(kind: str, program: Sequence[str], folder: str, disk_mib: int) -> list[str]:
    """`program` in a sandbox; `folder` is empty, and its place to mount things on."""
    if kind == "limits":
        return list(program)
    if kind == "bubblewrap":
        return [_tool("bwrap"), *_bubblewrap(disk_mib), "--", *program]
    # The tools are killed with the thread that started them, and take all with them.
    tie = [_tool("setpriv"), "--pdeathsig", "KILL", "--"]
    unshare = [*tie, _tool("unshare"), "--user", "--map-root-user", "--mount", "--net"]
    unshare += ["--pid", "--ipc", "--uts", "--fork", "--kill-child"]
    return [*unshare, "sh", "-c", _script(program, folder, disk_mib)]


def _tool(name: str) -> str:
    if found := shutil.which(name):
        return found
    raise NoSandbox(f"{name} is not installed; try another --sandbox")


def _visible() -> tuple[list[str], dict[str, str]]:
    """Folders and files to show, outer before inner, and symbolic links to make."""
    links = {path: os.readlink(path) for path in SYSTEM if os.path.islink(path)}
    python = [sys.prefix, sys.base_prefix, os.path.dirname(os.__file__)]
    python += site.getsitepackages()
    wanted = [path for path in SYSTEM if path not in links]
    wanted += [*python, str(ROOT / "helpers")]
    shown = []
    for path in sorted(map(os.path.abspath, filter(os.path.exists, wanted))):
        if not any(path == outer or path.startswith(outer + "/") for outer in shown):
            shown.append(path)
    return shown, links


def _machine() -> list[str]:
    """What in /proc is the machine's own, and open to root: to be made read-only."""
    names = ("sys", "sysrq-trigger", "irq", "bus", "fs")
    return [path for name in names if os.path.exists(path := f"/proc/{name}")]


def _bubblewrap(disk_mib: int) -> list[str]:
    shown, links = _visible()
    options = ["--unshare-all", "--die-with-parent", "--new-session"]
    options += ["--cap-drop", "ALL", "--proc", "/proc", "--dev", "/dev"]
    for place in ("/tmp", "/dev/shm"):
        options += ["--size", str(disk_mib * 2**20), "--tmpfs", place]
    for path in shown:
        options += ["--ro-bind", path, path]
    for path in _machine():
        options += ["--ro-bind", path, path]
    for path, target in links.items():
        options += ["--symlink", target, path]
    for place in ("/dev", "/"):
        options += ["--remount-ro", place]
    return [*options, "--dir", WORK, "--chdir", WORK]


def _script(program: Sequence[str], folder: str, disk_mib: int) -> str:
    """The same for `unshare`, as a shell script that runs inside its namespaces."""
    shown, links = _visible()
    size = f"size={disk_mib}m,nr_inodes=20000,mode=1777"
    lines = [
        "set -eu",
        f"mount -t tmpfs -o size=4m,mode=755 none {shlex.quote(folder)}",
        f"cd {shlex.quote(folder)}",
        "mkdir proc dev tmp",
        "mount -t proc none proc",
        "mount -t tmpfs -o size=4m,mode=755 none dev",
        f"mount -t tmpfs -o {size} none tmp",
        f"mkdir dev/shm && mount -t tmpfs -o {size} none dev/shm",
    ]
    for name in ("null", "zero", "full", "random", "urandom"):
        lines.append(f"touch dev/{name} && mount --bind /dev/{name} dev/{name}")
    for path in shown:
        place = shlex.quote(f".{path}")
        if os.path.isdir(path):
            lines.append(f"mkdir -p {place}")
        else:
            lines.append(f"mkdir -p {os.path.dirname(place)} && touch {place}")
        # What the machine forbids on this mount must stay forbidden.
        noexec = ",noexec" if os.statvfs(path).f_flag & os.ST_NOEXEC else ""
        lines.append(f"mount --rbind {shlex.quote(path)} {place}")
        lines.append(f"mount -o remount,bind,ro,nosuid,nodev{noexec} {place}")
    for path, target in links.items():
        lines.append(f"ln -s {shlex.quote(target)} {shlex.quote('.' + path)}")
    # Newer kernels bound the processes of a namespace, and no nested one is needed.
    lines += [
        f"(echo {PROCESSES} > proc/sys/kernel/pid_max) 2>&- || :",
        "(echo 0 > proc/sys/user/max_user_namespaces) 2>&- || :",
        f"for path in {' '.join(_machine())}; do mount --bind .$path .$path",
        "mount -o remount,bind,ro .$path; done",
        "mount -o remount,ro dev",
        "pivot_root . .",
        "umount -l .",
        "mount -o remount,ro /",
        f"mkdir {WORK} && cd {WORK}",
        # Not `exec`: the first process of the namespace, this shell, ends with it.
        "setpriv --no-new-privs --bounding-set=-all --inh-caps=-all "
        + shlex.join(program),
    ]
    return "\n".join(lines)
