"""Time and memory of the loss head: `python -m tests.benchmarks.loss_head`.

Forward and backward from hidden states, mean over the tokens, of the generalised JSD
with beta 0, the forward KL, and 0.5, by four routes: whole logits, TRL's chunked
divergence, Liger's chunked JSD, and `fused.linear_divergence`. For memory each has a
process of its own: the peak above the inputs, so the gradients count. For time they
take turns in one process, and the best turn counts. Loss and gradient must agree.
Writes notebooks/results/loss_head.json. Memory on a CPU is read where Linux tells it.
"""

import argparse
import itertools
import math
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from importlib import metadata
from pathlib import Path

import pandas
import torch
from torch import Tensor

from helpers import data, losses
from helpers.course import record
from helpers.losses import fused

BETAS = (0.0, 0.5)
SIZES = ((512, 32768, 256, 512), (1024, 151936, 256, 512), (2048, 151936, 896, 1536))
LIMIT = 2**28  # tokens x vocabulary; above it `fused` runs alone
COLUMNS = ["N", "V", "H_student", "H_teacher", "beta", "route", "seconds", "MiB"]


def whole(hs: Tensor, ws: Tensor, ht: Tensor, wt: Tensor, beta: float) -> Tensor:
    return losses.token_divergence(hs @ ws.T, ht @ wt.T, "jsd", beta=beta).mean()


def trl(hs: Tensor, ws: Tensor, ht: Tensor, wt: Tensor, beta: float) -> Tensor:
    from trl.kernels.chunked_divergence import ChunkedDivergenceFunction

    return ChunkedDivergenceFunction.apply(hs, ws, None, ht, wt, None, beta)[0].mean()


def liger(hs: Tensor, ws: Tensor, ht: Tensor, wt: Tensor, beta: float) -> Tensor:
    from liger_kernel.chunked_loss import LigerFusedLinearJSDLoss

    kept = torch.zeros(len(hs), dtype=torch.long, device=hs.device)
    jsd = LigerFusedLinearJSDLoss(0.0, 1.0, beta, compiled=hs.is_cuda)
    return jsd(hs, ws, ht, wt, kept)


def ours(hs: Tensor, ws: Tensor, ht: Tensor, wt: Tensor, beta: float) -> Tensor:
    return fused.linear_divergence(hs, ws, ht, wt, kind="jsd", beta=beta).mean()


ROUTES = {"whole logits": whole, "TRL": trl, "Liger": liger, "fused": ours}


def inputs(size: tuple, device: str, dtype: torch.dtype) -> list[Tensor]:
    """Student's hidden states and weight, then the teacher's; logits of size 1."""
    torch.manual_seed(0)
    tokens, words, *widths = size
    made = []
    for width in widths:
        for rows, scale in ((tokens, 1), (words, width**-0.5)):
            x = torch.randn(rows, width, device=device, dtype=dtype).mul_(scale)
            made.append(x.requires_grad_(width == widths[0]))
    return made


def step(route: Callable, tensors: list[Tensor], beta: float) -> tuple[float, float]:
    """Forward and backward; loss and norm of the weight's gradient."""
    for x in tensors:
        x.grad = None
    loss = route(*tensors, beta)
    loss.backward()
    return loss.item(), tensors[1].grad.norm(dtype=torch.float32).item()


def peak_mib(route: Callable, tensors: list[Tensor], beta: float) -> float:
    """Peak of one step above what is held before, in MiB."""
    # The first call of a route loads code and starts threads: done on a tiny input.
    tiny = [x[:32].detach().requires_grad_(x.requires_grad) for x in tensors]
    step(route, tiny, beta)
    if tensors[0].is_cuda:
        before = torch.cuda.memory_allocated()
        torch.cuda.reset_peak_memory_stats()
        step(route, tensors, beta)
        return (torch.cuda.max_memory_allocated() - before) / fused.MIB
    Path("/proc/self/clear_refs").write_text("5")  # the peak starts again from here
    before = status("VmRSS")
    step(route, tensors, beta)
    return (status("VmHWM") - before) / 1024


def status(field: str) -> int:
    """A line of /proc/self/status, in KiB."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(x.split()[1]) for x in lines if x.startswith(field))


def memory(name: str, size: tuple, beta: float, options: argparse.Namespace) -> float:
    """`peak_mib` in a process of its own."""
    command = [sys.executable, "-m", "tests.benchmarks.loss_head", "--memory-of", name]
    command += ["--sizes", ",".join(map(str, size)), "--betas", str(beta)]
    for option in ("threads", "device", "dtype"):
        command += [f"--{option}", str(getattr(options, option))]
    output = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    return float(output.stdout.split()[-1])


def times(names: Sequence[str], tensors: list[Tensor], beta: float, turns: int) -> dict:
    """Best of the turns of each route: seconds, loss, norm of the gradient."""
    best = {}
    for _ in range(turns):
        for name in names:
            start = time.perf_counter()
            loss, norm = step(ROUTES[name], tensors, beta)  # waits for a GPU
            result = time.perf_counter() - start, loss, norm
            best[name] = min(result, best.get(name, result))
    return best


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sizes", nargs="+", help="N,V,H_student,H_teacher …")
    parser.add_argument("--betas", nargs="+", type=float, default=BETAS)
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--dtype", default="float32")
    parser.add_argument("--no-results", action="store_true", help="print only")
    parser.add_argument("--memory-of", choices=ROUTES, help=argparse.SUPPRESS)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    sizes = [tuple(map(int, s.split(","))) for s in options.sizes or ()] or SIZES
    settings = options.device, getattr(torch, options.dtype)
    if options.memory_of:
        tensors = inputs(sizes[0], *settings)
        print(peak_mib(ROUTES[options.memory_of], tensors, options.betas[0]))
        return
    rows, start = [], time.perf_counter()
    tolerance = 1e-4 if options.dtype == "float32" else 2e-2
    for size, beta in itertools.product(sizes, options.betas):
        names = ["fused"] if size[0] * size[1] > LIMIT else list(ROUTES)
        mib = {name: memory(name, size, beta, options) for name in names}
        best = times(names, inputs(size, *settings), beta, options.turns)
        for name, (seconds, *values) in best.items():
            for value, expected in zip(values, best["fused"][1:], strict=True):
                assert math.isclose(value, expected, rel_tol=tolerance), name
            rows.append([*size, beta, name, round(seconds, 3), round(mib[name])])
        table = pandas.DataFrame(rows[-len(best) :], columns=COLUMNS)
        print(table.to_string(index=False), flush=True)
    if not options.no_results:
        card = data.run_card(
            " ".join(["python -m tests.benchmarks.loss_head", *sys.argv[1:]]),
            device=options.device,
            dtype=options.dtype,
            seeds=[0],
            minutes=round((time.perf_counter() - start) / 60, 1),
        )
        for package in ("trl", "liger-kernel"):
            card["versions"][package] = metadata.version(package)
        data.write_results(record.RESULTS / "loss_head.json", COLUMNS, rows, card)


if __name__ == "__main__":
    main()
