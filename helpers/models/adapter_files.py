"""Adapters on disk: saved with what they belong to, loaded, listed."""

import copy
import json
from pathlib import Path

from peft import PeftConfig, PeftModel, get_peft_model_state_dict
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from transformers import PreTrainedModel

from ..data.jsonl import write_json
from .adapters import AdapterError, check_base, fingerprint, restore
from .hub import origin

WEIGHTS, BASE = "adapter_model.safetensors", "base.json"


def save_adapter(model: PeftModel, folder: str | Path) -> Path:
    """Write A and B as safetensors, their settings, and which base they belong to.

    A few megabytes, in the layout that peft and servers read, with `base.json` beside:
    the base's name, its revision on the hub, and a fingerprint of its weights.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    state = get_peft_model_state_dict(model, save_embedding_layers=False)
    save_file({k: v.contiguous().cpu() for k, v in state.items()}, folder / WEIGHTS)
    name, revision = origin(model.config._name_or_path)
    config = copy.deepcopy(model.peft_config["default"])
    config.inference_mode, config.base_model_name_or_path = True, name
    config.save_pretrained(folder)
    about = {
        "base": name,
        "revision": revision,
        "rank": config.r,
        "alpha": config.lora_alpha,
        "parameters": sum(value.numel() for value in state.values()),
        "fingerprint": fingerprint(model),
    }
    write_json(folder / BASE, about)
    return folder


def load_adapter(
    base: PreTrainedModel, folder: str | Path, *, trainable: bool = False
) -> PeftModel:
    """The adapter of `folder` over `base`, in eval mode; `trainable` to train it on.

    Raises `AdapterError` where there is none, where a file is damaged, and where `base`
    is not the one it was trained on, but for rounding to 4 bits or half precision.
    """
    folder = Path(folder)
    about = _read(folder)
    check_base(about["fingerprint"], base, f"{folder.name}, trained on {about['base']}")
    try:
        state = load_file(folder / WEIGHTS)
    except (OSError, SafetensorError) as error:
        raise AdapterError(f"{folder / WEIGHTS}: {error}; save it again") from None
    config = PeftConfig.from_pretrained(folder)
    model = restore(base, config, state).eval()
    return model if trainable else model.requires_grad_(False)


def list_adapters(folder: str | Path) -> list[dict]:
    """What `save_adapter` wrote below a folder: name, base, rank, alpha, parameters."""
    found = []
    for path in sorted(Path(folder).rglob(BASE)):
        about = _read(path.parent)
        name = path.parent.relative_to(folder).as_posix()
        kept = ("base", "revision", "rank", "alpha", "parameters")
        found.append({"name": name} | {key: about[key] for key in kept})
    return found


def _read(folder: Path) -> dict:
    try:
        return json.loads((folder / BASE).read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise AdapterError(
            f"{folder}: no {BASE}, so no adapter written by models.save_adapter"
        ) from None
    except ValueError as error:
        raise AdapterError(f"{folder / BASE}: {error}; save it again") from None
