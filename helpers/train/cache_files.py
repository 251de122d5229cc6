"""The files of a cache: written whole or not at all, checked when they are read."""

import hashlib
import json
import warnings
from pathlib import Path

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

MANIFEST, HEAD = "manifest.json", "head.safetensors"


class CacheError(ValueError):
    """A cache that cannot be used; the message says why and what to do."""


def resume(folder: Path, settings: dict) -> tuple[dict, set[bytes]]:
    """The manifest, without damaged shards, and the keys of the rows that are done."""
    folder.mkdir(parents=True, exist_ok=True)
    if not (folder / MANIFEST).exists():
        return {"teacher": None, "settings": settings, "files": {}}, set()
    manifest = read_manifest(folder)
    for name, value in settings.items():
        if (there := manifest["settings"].get(name)) != value:
            raise CacheError(
                f"{folder}: written by {manifest['teacher']} with {name} = {there}, "
                f"not {value}: choose another folder, or delete this one"
            )
    done = set()
    for name, entry in list(manifest["files"].items()):
        try:
            check_file(folder / name, entry)
        except CacheError as error:
            warnings.warn(f"{error} (being done now)", stacklevel=3)
            del manifest["files"][name]
            continue
        if name != HEAD:
            keys = map_file(folder / name, entry)["keys"].numpy()
            done.update(key.tobytes() for key in keys)
    return manifest, done


def save(path: Path, tensors: dict[str, Tensor]) -> dict:
    """Write beside the place and move: the file is whole or not there."""
    part = path.with_name(path.name + ".part")
    save_file(tensors, part)
    entry = {"bytes": part.stat().st_size, "blake2b": digest(part)}
    part.replace(path)
    return entry


def read_manifest(folder: Path) -> dict:
    """Whose signal the folder holds, and in which files; else `CacheError`."""
    try:
        return json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise CacheError(
            f"{folder}: no {MANIFEST}, so no cache; write one with write_cache"
        ) from None
    except ValueError as error:
        raise CacheError(
            f"{folder}: {MANIFEST} is damaged ({error}); delete the folder and run "
            "write_cache again"
        ) from None


def map_file(path: Path, entry: dict) -> dict[str, Tensor]:
    """The file's tensors, mapped: bytes are read when they are looked at."""
    check_size(path, entry)
    try:
        with safe_open(path, "pt") as file:
            return {name: file.get_tensor(name) for name in file.keys()}
    except SafetensorError as error:
        raise CacheError(damaged(path, str(error))) from None


def check_size(path: Path, entry: dict) -> None:
    """Raise `CacheError` where the file is missing or not as long as it was written."""
    if not path.exists():
        raise CacheError(damaged(path, "it is missing"))
    if path.stat().st_size != entry["bytes"]:
        size = path.stat().st_size
        raise CacheError(damaged(path, f"{size} bytes in place of {entry['bytes']}"))


def check_file(path: Path, entry: dict) -> None:
    """Raise `CacheError` where the file is not, byte for byte, what was written."""
    check_size(path, entry)
    if digest(path) != entry["blake2b"]:
        raise CacheError(damaged(path, "its checksum is another"))


def damaged(path: Path, what: str) -> str:
    """What is wrong with a file, and what to do about it."""
    return f"{path}: {what}. Run write_cache again with the same rows to write it anew"


def digest(path: Path) -> str:
    """BLAKE2b of the file, read piece by piece."""
    with path.open("rb") as file:
        found = hashlib.file_digest(file, lambda: hashlib.blake2b(digest_size=16))
    return found.hexdigest()
