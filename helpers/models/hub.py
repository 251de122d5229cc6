"""What can go wrong when a model is read from a folder or the hub, each in one line."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from huggingface_hub import constants, try_to_load_from_cache
from huggingface_hub.errors import (
    GatedRepoError,
    HFValidationError,
    LocalEntryNotFoundError,
    RepositoryNotFoundError,
)
from safetensors import SafetensorError, safe_open


class ModelError(ValueError):
    """A model that cannot be loaded; the message says why and what to do."""


def origin(name: str) -> tuple[str, str | None]:
    """A hub id and its revision; of a folder the last part, for its path means nothing
    on another machine."""
    path = Path(name)
    if path.is_absolute() or path.is_dir():
        return path.name, None
    cached = try_to_load_from_cache(name, "config.json")
    return name, Path(cached).parent.name if isinstance(cached, str) else None


def check_folder(folder: Path) -> None:
    """A local folder must hold a model, in safetensors."""
    if folder.is_absolute() and not folder.exists():
        raise FileNotFoundError(
            f"there is no folder {folder.name}/ where it should be. For a model of "
            "your own check the path; for one of the course the clone is incomplete: "
            "fetch the repository again, or run `make weights`"
        )
    if not folder.is_dir():
        return  # a name on the hub
    if not (folder / "config.json").exists():
        if (folder / "adapter_config.json").exists():
            cure = "it holds an adapter: load its base, then use models.load_adapter"
        else:
            cure = "name the folder that save_pretrained wrote, with its tokenizer"
        raise ModelError(f"{folder} holds no model, for it has no config.json: {cure}")
    if reason := damage(folder):
        raise ModelError(reason)


def damage(folder: Path) -> str:
    """What is wrong with the weights of a folder, or nothing."""
    files = sorted(folder.glob("*.safetensors"))
    index = folder / "model.safetensors.index.json"
    if index.exists():
        wanted = json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()
        files = [folder / name for name in sorted(set(wanted))]
    elif not files:
        pickles = [p.name for p in folder.iterdir() if p.suffix in (".bin", ".pt")]
        return f"{folder} has no weights as safetensors" + (
            f", only {pickles[0]}, a pickle, which can run any program when it is "
            "opened: take a model that its author has published as safetensors"
            if pickles
            else ": fetch it whole, or take a model that has them"
        )
    for path in files:
        try:
            with safe_open(path, "pt"):  # compares its table of contents with its size
                pass
        except (OSError, SafetensorError) as error:
            return f"{path} is missing or damaged ({error}): fetch it again"
    return ""


@contextmanager
def explained(name: str) -> Iterator[None]:
    """Turn what the libraries raise into one line that says what to do."""
    try:
        yield
    except ModelError:
        raise
    except (OSError, ValueError, KeyError, RuntimeError, SafetensorError) as error:
        raise ModelError(f"{name}: {_cure(error, name)}") from error


def _cure(error: BaseException, name: str) -> str:
    causes = [error]
    while (cause := causes[-1].__cause__ or causes[-1].__context__) is not None:
        causes.append(cause)

    def is_a(kind: type) -> bool:
        return any(isinstance(cause, kind) for cause in causes)

    if is_a(GatedRepoError):  # a kind of RepositoryNotFoundError
        return (
            "gated. Accept its licence on its page on the hub, then sign in with "
            "`hf auth login`"
        )
    if is_a(RepositoryNotFoundError):
        return (
            "no such model on the hub. Check the spelling, owner/name; for a private "
            "one sign in with `hf auth login`"
        )
    if is_a(HFValidationError):
        return "neither a folder here nor a name on the hub, owner/name"
    if is_a(LocalEntryNotFoundError):
        off = "is switched off (HF_HUB_OFFLINE)"
        return (
            "not on this computer, or not all of it, and the hub "
            f"{off if constants.HF_HUB_OFFLINE else 'cannot be reached'}. Where there "
            f"is a network, run `hf download {name}` once; or take the track tiny, "
            "which needs none"
        )
    if not Path(name).is_dir():
        config = try_to_load_from_cache(name, "config.json")
        if isinstance(config, str) and (reason := damage(Path(config).parent)):
            return reason
    text = str(error).strip().partition("\n")[0]
    if "custom code" in text:
        return (
            "it needs program code from the hub, which is never run here: take a model "
            "that transformers knows"
        )
    return text or type(error).__name__
