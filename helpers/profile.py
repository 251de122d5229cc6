"""What it costs: parameters, bytes, latency, throughput, peak memory."""

import time
from collections.abc import Callable, Mapping, Sequence

import numpy as np
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.weak import WeakIdKeyDictionary
from transformers import PreTrainedModel

from .generate import answer
from .models import ChatModel


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


class _Allocations(TorchDispatchMode):
    """Counts the bytes of tensors that live at a time, storage by storage."""

    def __init__(self):
        super().__init__()
        self.sizes, self.peak = WeakIdKeyDictionary(), 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        for tensor in tree_leaves((args, kwargs)):
            if isinstance(tensor, torch.Tensor):  # first seen as an input: was there
                self.sizes.setdefault(tensor.untyped_storage(), 0)
        result = func(*args, **(kwargs or {}))
        for tensor in tree_leaves(result):
            if isinstance(tensor, torch.Tensor):
                storage = tensor.untyped_storage()
                self.sizes.setdefault(storage, storage.nbytes())
        self.peak = max(self.peak, sum(self.sizes.values()))
        return result


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
