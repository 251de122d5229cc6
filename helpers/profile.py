"""What it costs: parameters, bytes, latency, throughput, peak memory.

What memory will be needed, before anything is loaded, is computed in `ledger`, and
compared with a GPU in `fits`; their public names are found here as well.
"""

import json
import time
import weakref
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.weak import WeakIdKeyDictionary
from transformers import PreTrainedModel

from .fits import MemoryShortage, Verdict, fits, stages
from .generate import answer
from .ledger import (
    Ledger,
    Step,
    facts,
    generating,
    kv_cache,
    shape,
    step_flops,
    training,
    weights,
)
from .models import ChatModel

__all__ = [
    "Ledger",
    "MemoryShortage",
    "Step",
    "Verdict",
    "facts",
    "fits",
    "generating",
    "gpu_record",
    "kv_cache",
    "latency",
    "parameters",
    "peak_memory",
    "shape",
    "stages",
    "step_flops",
    "throughput",
    "training",
    "weight_bytes",
    "weights",
]

GPU_RECORD = Path(__file__).resolve().parents[1] / "notebooks" / "results" / "gpu.json"


def parameters(model: torch.nn.Module, *, trainable: bool = False) -> int:
    """Number of parameters; a tied matrix counts once."""
    return sum(
        p.numel() for p in model.parameters() if p.requires_grad or not trainable
    )


def weight_bytes(model: torch.nn.Module) -> int:
    """Bytes of all parameters in the data type they are held in."""
    return sum(p.numel() * p.element_size() for p in model.parameters())


def latency(
    models: Mapping[str, ChatModel],
    prompts: Sequence[Sequence[dict]],
    *,
    max_new_tokens: int = 64,
    warm_up: int = 2,
) -> dict[str, np.ndarray]:
    """Seconds for each prompt, answered alone (batch 1), greedy: name ->
    (len(prompts),).

    The models take turns, prompt by prompt, so that a slow moment of the machine falls
    on all of them; `warm_up` prompts are answered first and not counted.
    """
    seconds = {name: [] for name in models}
    for count, prompt in enumerate([*prompts[:warm_up], *prompts]):
        for name, (model, tokenizer) in models.items():
            _synchronise(model)
            start = time.perf_counter()
            answer(model, tokenizer, [prompt], max_new_tokens=max_new_tokens)
            _synchronise(model)
            if count >= warm_up:
                seconds[name].append(time.perf_counter() - start)
    return {name: np.array(values) for name, values in seconds.items()}


def throughput(
    models: Mapping[str, ChatModel],
    prompts: Sequence[Sequence[dict]],
    *,
    batch_size: int = 64,
    max_new_tokens: int = 64,
    repeats: int = 2,
) -> dict[str, float]:
    """Answers a second when prompts come in batches; the best of interleaved repeats.

    The best, because everything else that a machine does can only slow a run down.
    """
    best = dict.fromkeys(models, float("inf"))
    for _ in range(repeats):
        for name, (model, tokenizer) in models.items():
            _synchronise(model)
            start = time.perf_counter()
            answer(
                model,
                tokenizer,
                prompts,
                batch_size=batch_size,
                max_new_tokens=max_new_tokens,
            )
            _synchronise(model)
            best[name] = min(best[name], time.perf_counter() - start)
    return {name: len(prompts) / seconds for name, seconds in best.items()}


def gpu_record(path: Path = GPU_RECORD) -> pd.DataFrame | None:
    """The recorded runs of full-size models on a GPU, with their run card in `.attrs`.

    Where nobody has recorded any, says so, with the command that does, and returns
    None.
    """
    if not path.exists():
        print(
            "There is no record of a run on a GPU: no number of this course was "
            "measured on one.\nOn a machine that has one this makes it: "
            "python -m tests.benchmarks.gpu"
        )
        return None
    record = json.loads(path.read_text(encoding="utf-8"))
    table = pd.DataFrame(record["rows"], columns=record["columns"])
    table.attrs = record["run_card"]
    return table


class _Allocations(TorchDispatchMode):
    """Counts the bytes of tensors that live at a time, storage by storage."""

    def __init__(self):
        super().__init__()
        self.seen, self.live, self.peak = WeakIdKeyDictionary(), 0, 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        for tensor in tree_leaves((args, kwargs)):
            if isinstance(tensor, torch.Tensor):  # first seen as an input: was there
                self.seen.setdefault(tensor.untyped_storage(), True)
        result = func(*args, **(kwargs or {}))
        for tensor in tree_leaves(result):
            if isinstance(tensor, torch.Tensor):
                self._count(tensor.untyped_storage())
        self.peak = max(self.peak, self.live)
        return result

    def _count(self, storage: torch.UntypedStorage) -> None:
        if storage not in self.seen:
            self.seen[storage] = True
            self.live += storage.nbytes()
            weakref.finalize(storage, self._freed, storage.nbytes()).atexit = False

    def _freed(self, size: int) -> None:
        self.live -= size


def peak_memory(action: Callable[[], object]) -> int:
    """Peak bytes of the tensors that `action()` creates, beyond what was there before.

    On a CUDA device the allocator is asked; on a CPU every tensor made is counted,
    which slows the action down but does not depend on what the process did before.
    """
    if torch.cuda.is_available():
        torch.cuda.synchronize()
        before = torch.cuda.memory_allocated()
        torch.cuda.reset_peak_memory_stats()
        action()
        torch.cuda.synchronize()
        return torch.cuda.max_memory_allocated() - before
    with _Allocations() as allocations:
        action()
    return allocations.peak


def _synchronise(model: PreTrainedModel) -> None:
    if model.device.type == "cuda":
        torch.cuda.synchronize()
