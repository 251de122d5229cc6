"""What can be counted: parameters, bytes, peak memory, and money for answers."""

import json
import weakref
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.weak import WeakIdKeyDictionary

from ..generate.budget import Prices, Usage

GPU_RECORD = Path(__file__).resolve().parents[2] / "notebooks" / "results" / "gpu.json"


def parameters(model: torch.nn.Module, *, trainable: bool = False) -> int:
    """Number of parameters; a tied matrix counts once."""
    return sum(
        p.numel() for p in model.parameters() if p.requires_grad or not trainable
    )


def weight_bytes(model: torch.nn.Module) -> int:
    """Bytes of all parameters in the data type they are held in."""
    return sum(p.numel() * p.element_size() for p in model.parameters())


def disk_bytes(model: torch.nn.Module | str | Path) -> int:
    """Bytes of weights on disk: of the files in a folder, or as a model would be saved.

    A folder: its safetensors files, those of its subfolders too. A model: two bytes for
    every parameter, a tied matrix once, and for packed 4-bit weights the bytes they
    have; the file's header, about a hundred bytes a tensor, is left out. Raises
    `FileNotFoundError` for a folder without safetensors.
    """
    if isinstance(model, torch.nn.Module):
        params = model.parameters()
        return sum(p.numel() * min(2, p.element_size()) for p in params)
    files = list(Path(model).rglob("*.safetensors"))
    if not files:
        raise FileNotFoundError(f"no safetensors in {model}: save the model first")
    return sum(file.stat().st_size for file in files)


@dataclass(frozen=True)
class Machine:
    """What a machine costs an hour, in the money of your bill: prices change, so this
    course states none. `busy` is the share of paid time in which it has work.
    """

    price_an_hour: float
    busy: float = 1.0

    def __post_init__(self):
        if self.price_an_hour < 0 or not 0 < self.busy <= 1:
            raise ValueError("price_an_hour must be >= 0 and busy in (0, 1]")

    def cost(self, answers_a_second: float, answers: int = 1_000_000) -> float:
        """Money for so many answers at this speed. Raises `ValueError` for speed 0."""
        if answers_a_second <= 0:
            raise ValueError("answers_a_second must be above 0: measure it first")
        hours = answers / answers_a_second / 3600
        return hours / self.busy * self.price_an_hour


def api_cost(
    prices: Prices, usage: Usage, answered: int, answers: int = 1_000_000
) -> float:
    """Money for so many answers of an API, from the tokens that `answered` ones took.

    `generate.usage_of(rows)` adds up the tokens of rows that a teacher wrote. Raises
    `ValueError` where nothing was answered.
    """
    if answered < 1:
        raise ValueError("no answers: the tokens of one cannot be known")
    return prices.cost(usage) / answered * answers


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
