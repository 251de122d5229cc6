"""LoRA and QLoRA: add an adapter, train it thriftily, merge it and check the merge."""

import copy
import hashlib
import warnings
from collections.abc import Sequence

import torch
from peft import (
    LoraConfig,
    PeftModel,
    get_peft_model,
    get_peft_model_state_dict,
    set_peft_model_state_dict,
)
from torch import Tensor
from torch.nn import Parameter
from transformers import PreTrainedModel

from .modes import eval_mode


class AdapterError(ValueError):
    """An adapter that cannot be used; the message says why and what to do."""


def add_lora(
    model: PreTrainedModel,
    rank: int = 16,
    *,
    alpha: float | None = None,
    targets: str | list[str] = "all-linear",
    dropout: float = 0.0,
) -> PeftModel:
    """Freeze `model` and add trainable low-rank matrices to its linear layers.

    LoRA (Hu et al. 2021): W x becomes W x + (alpha / rank) B A x, with A (rank, in)
    random and B (out, rank) zero, so the model starts unchanged. `alpha` defaults to 2
    x rank. Over a base in 4 bits this is QLoRA (Dettmers et al. 2023). A and B are
    float32 in either case: steps of the optimiser are too small for half precision.

    The model handed in does not change. The new one shares its frozen weights, so that
    no second copy fills the memory; those in 4 bits, which are small, are copied.
    """
    config = LoraConfig(
        r=rank,
        lora_alpha=alpha if alpha is not None else 2 * rank,
        target_modules=targets,
        lora_dropout=dropout,
        task_type="CAUSAL_LM",
    )
    return _wrap(model, config)


def checkpoint(model: torch.nn.Module) -> None:
    """Keep one activation a layer in training, and compute the others once more.

    Gradient checkpointing (Chen et al. 2016): less memory, about a third more time, the
    same gradients. This variant works over a frozen base, too, where the older one
    needs the embeddings' output to require a gradient.
    """
    model.activation_checkpointing_enable()


def adamw(
    model: torch.nn.Module, learning_rate: float, weight_decay: float = 0.0
) -> torch.optim.Optimizer:
    """AdamW over what is trained: paged where the base is in 4 bits on a GPU.

    A paged optimiser (Dettmers et al. 2023) lets its moments move to the memory of the
    machine when that of the GPU is full, instead of failing.
    """
    trained = [p for p in model.parameters() if p.requires_grad]
    kind = torch.optim.AdamW
    if in_4_bits(model) and trained[0].is_cuda:
        from bitsandbytes.optim import PagedAdamW32bit as kind
    return kind(trained, lr=learning_rate, weight_decay=weight_decay)


def in_4_bits(model: torch.nn.Module) -> bool:
    """Whether some weights are packed into 4 bits."""
    return any(_packed(p) for p in model.parameters())


@torch.no_grad()
def merge(
    model: PeftModel,
    *,
    base: PreTrainedModel | None = None,
    rows: Sequence[dict] | None = None,
    tolerance: float | None = None,
) -> PreTrainedModel:
    """Fold the adapter into the weights: a plain model that answers as the adapted one.

    The adapted model is left as it was.

    - base: for an adapter trained over 4 bits, the same base in full precision. The
      adapter is moved onto it and merged there; what the rounding of the base to 4 bits
      did to the answers goes, for better or worse.
    - rows: of `data.encode_chat`, on which adapted and merged logits are compared (the
      first eight); without them it is an arbitrary row of ids.
    - tolerance: how far these logits may be apart; by default 1e-4 in float32, and in
      half precision what its rounding explains (see `rounding`).

    Raises `ValueError` when they are further apart: a base in 4 bits, above all, cannot
    hold the sum. Raises `AdapterError` when `base` is not the adapter's base.
    """
    if base is not None:
        check_base(fingerprint(model), base, "this adapter")
        config, state = model.peft_config["default"], get_peft_model_state_dict(model)
        model = restore(base, config, state)
    merged = copy.deepcopy(model).merge_and_unload().eval()
    probes = [row["input_ids"] for row in rows or ()][:8]
    probes = probes or [range(min(64, merged.get_input_embeddings().num_embeddings))]
    gap, largest = 0.0, 0.0
    with eval_mode(model):
        for ids in probes:
            ids = torch.tensor([list(ids)], device=merged.device)
            adapted = model(ids).logits.float()
            gap = max(gap, (adapted - merged(ids).logits.float()).abs().max().item())
            largest = max(largest, adapted.abs().max().item())
    allowed = rounding(merged.dtype, largest) if tolerance is None else tolerance
    if not gap <= allowed:
        raise ValueError(
            f"merging changed the logits by {gap:.2g} (allowed {allowed:.2g}); "
            "merge into the base in its full precision, not into a quantised one; "
            "models.merge(adapter, base=models.load(name).model) does so"
        )
    return merged


def rounding(dtype: torch.dtype, largest: float) -> float:
    """How far rounding alone may take logits of this size: 1e-4 in float32.

    In half precision three times what it did to the course's models of 3 and 32 layers.
    """
    return 1e-4 if dtype == torch.float32 else 8 * torch.finfo(dtype).eps * largest


def fingerprint(model: torch.nn.Module) -> dict[str, str | None]:
    """Hashes of about a thousand values of every frozen weight, by kind of weight.

    The same for a base in float32, in half precision and under an adapter. Linear
    layers in 4 bits cannot be compared with others: their hash is None. A bias counts
    as a norm.
    """
    embedding = model.get_input_embeddings().weight
    digests = {"embedding and norms": hashlib.blake2b(digest_size=16)}
    digests["linear layers"] = hashlib.blake2b(digest_size=16)
    for _, p in sorted(_frozen(model)):
        linear = p.dim() > 1 and p is not embedding
        kind = "linear layers" if linear else "embedding and norms"
        some = p.detach().flatten()[:: max(1, p.numel() // 1024)]
        some = some.to(torch.bfloat16).view(torch.int16).cpu()
        digests[kind].update(some.numpy().tobytes())
    hashes = {kind: digest.hexdigest() for kind, digest in digests.items()}
    return hashes | ({"linear layers": None} if in_4_bits(model) else {})


def _frozen(model: torch.nn.Module):
    """The base's parameters under the names that they have without an adapter."""
    for name, parameter in model.named_parameters():
        if "lora_" not in name:
            name = name.removeprefix("base_model.model.").replace(".base_layer.", ".")
            yield name, parameter


def _packed(parameter: Tensor) -> bool:
    return hasattr(parameter, "quant_state")  # bitsandbytes.nn.Params4bit


def _wrap(model: PreTrainedModel, config: LoraConfig) -> PeftModel:
    """A model of the same frozen tensors with an adapter; `model` stays as it is."""
    shared = {
        id(p): Parameter(p.data, requires_grad=False)
        for p in model.parameters()
        # The layer and its 4-bit weight hold a state in common: both are copied.
        if not _packed(p)
    }
    with warnings.catch_warnings():
        # peft asks for an attribute by its old name; nothing a learner could mend.
        warnings.filterwarnings("ignore", "`is_gradient_checkpointing`", FutureWarning)
        # It sets this by itself, and says so, where GPT-2 stores matrices as (in, out).
        warnings.filterwarnings("ignore", "fan_in_fan_out is set to False", UserWarning)
        return get_peft_model(copy.deepcopy(model, shared), config)


def restore(
    base: PreTrainedModel, config: LoraConfig, state: dict[str, Tensor]
) -> PeftModel:
    """The adapter of `state`, the whole of it, over another copy of its base."""
    config = copy.deepcopy(config)
    config.inference_mode, config.base_model_name_or_path = False, None
    model = _wrap(base, config)
    expected = get_peft_model_state_dict(model, save_embedding_layers=False)
    shapes, theirs = ({k: v.shape for k, v in d.items()} for d in (expected, state))
    if shapes != theirs:
        odd = sorted(k for k in {*shapes, *theirs} if shapes.get(k) != theirs.get(k))
        raise AdapterError(
            f"{len(odd)} of the adapter's matrices do not fit this base, the first is "
            f"{odd[0]}: take the base it was trained on"
        )
    set_peft_model_state_dict(model, state)
    return model


def check_base(known: dict, base: PreTrainedModel, adapter: str) -> None:
    """Compare the fingerprints, as far as both have one."""
    for kind, here in fingerprint(base).items():
        if here and known[kind] and here != known[kind]:
            raise AdapterError(
                f"the base has other weights ({kind}) than that of {adapter}: "
                "load the base it was trained on, in its own revision, not yet merged "
                "with anything"
            )
