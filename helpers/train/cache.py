"""Teacher signals on disk: run the teacher once, then train from files.

A cache is a folder. `manifest.json` says whose signal it holds and lists every file
with its checksum; shards of safetensors hold the signal at the positions whose label is
kept, row after row. A row is found by a hash of its input ids and of those positions,
never by its number, so that it cannot land on another example.
"""

import hashlib
import json
import warnings
from collections.abc import Iterable, Iterator, Sequence
from functools import cached_property
from itertools import count
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from datasets import Dataset
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor
from tqdm.auto import tqdm
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from .data import collate, write_json
from .losses import SparseTargets, shift_and_mask
from .models import ChatModel, name_of, weights_hash
from .train import LiveTeacher
from .vocabulary import rendered

KINDS = ("topk", "sampled", "hidden", "dense")
MANIFEST, HEAD = "manifest.json", "head.safetensors"
KEY_BYTES = 16  # 12 of the input ids, 4 of the kept positions
LOWEST = -6e4  # float16 ends at -65,504


class CacheError(ValueError):
    """A cache that cannot be used; the message says why and what to do."""


def write_cache(
    teacher: ChatModel,
    rows: Iterable[dict] | Dataset,
    folder: str | Path,
    *,
    kind: str = "topk",
    k: int = 64,
    samples: int = 12,
    temperature: float = 1.0,
    vocab: int | None = None,
    batch_size: int = 32,
    shard_bytes: int = 2**26,
    progress: bool = True,
) -> "TeacherCache":
    """Run the teacher over the rows, keep its signal in `folder`, and open it.

    - rows: `input_ids` and `labels` from `data.encode_chat`, read once and in order;
      at most about `shard_bytes` of the signal are in memory at any time.
    - kind: `topk`, the k likeliest tokens and the mass of all others; `sampled`, so
      many `samples` a position drawn from the teacher's distribution (Anshumann et al.
      2025), the same ones in every run; `hidden`, what enters the teacher's output
      matrix, which is stored once: exact; `dense`, all log-probabilities in float16.
    - temperature: softens what topk and sampled store, and must be that of the loss.
      The other two kinds serve every temperature.
    - vocab: logit columns shared with the student (`models.shared_vocab`).

    A shard, and then the manifest, appears whole or not at all: after a kill the same
    call goes on. It also adds new rows and rewrites damaged shards. A row that occurs
    twice is stored once. Raises `CacheError` where the folder holds the signal of
    another teacher, or another kind, and `ValueError` for a setting out of range.
    """
    folder = Path(folder)
    settings = _settings(teacher, kind, k, samples, temperature, vocab)
    record = _Recorder(teacher.model, settings)
    manifest, done = _resume(folder, settings)
    manifest["teacher"], files = name_of(teacher), manifest["files"]
    if kind == "hidden" and HEAD not in files:
        files[HEAD] = _save(folder / HEAD, record.head)
    total = len(rows) if hasattr(rows, "__len__") else None
    bar = tqdm(rows, "cache", total=total, disable=not progress)
    for window in _windows(bar, done, shard_bytes / record.bytes_per_token):
        window.sort(key=lambda item: len(item.row["input_ids"]))  # pads less
        shard = _concatenate(
            record(window[start : start + batch_size])
            for start in range(0, len(window), batch_size)
        )
        ends = np.cumsum([0, *(item.kept for item in window)])
        keys = np.frombuffer(b"".join(item.key for item in window), np.uint8)
        shard["offsets"] = torch.tensor(ends)
        shard["keys"] = torch.tensor(keys).view(len(window), KEY_BYTES)
        names = (f"shard-{number:05}.safetensors" for number in count())
        name = next(name for name in names if name not in files)
        files[name] = _save(folder / name, shard)
        files[name] |= {"rows": len(window), "tokens": int(ends[-1])}
        if kind == "topk":
            files[name]["kept_mass"] = 1 - shard["tail"].float().exp().mean().item()
        write_json(folder / MANIFEST, manifest)
    return open_cache(folder)


def open_cache(
    folder: str | Path,
    *,
    tokenizer: PreTrainedTokenizerBase | None = None,
    teacher: ChatModel | None = None,
    tail: str = "bucket",
) -> "TeacherCache":
    """The cache as a signal for `train.fit(teacher=...)`; shards stay on the disk.

    Give the student's `tokenizer`, or the `teacher`, to have them compared with those
    of the manifest. `tail`: how a topk cache is used (`losses.sparse_divergence`).
    Raises `CacheError` naming what is missing, damaged or does not belong together.
    """
    folder = Path(folder)
    manifest = _read_manifest(folder)
    settings = manifest["settings"]
    if teacher is not None:
        tokenizer = teacher.tokenizer
        if weights_hash(teacher.model) != settings["weights"]:
            raise CacheError(
                f"{folder}: written by {manifest['teacher']} with other weights than "
                f"{name_of(teacher)} has: open it with that teacher, or write a new "
                "cache"
            )
    if tokenizer is not None:
        if _tokenizer_hash(tokenizer, settings["vocab"]) != settings["tokenizer"]:
            raise CacheError(
                f"{folder}: written with another tokenizer, so that ids do not mean "
                "the same. Use a teacher with the student's tokenizer and write a new "
                "cache, or train on the teacher's text"
            )
        if _template_hash(tokenizer) != settings["template"]:
            raise CacheError(
                f"{folder}: written under another chat template, so that rows of this "
                "tokenizer are not what the teacher was asked. Give the student the "
                "teacher's: student.tokenizer.chat_template = "
                "teacher.tokenizer.chat_template, and encode the rows anew"
            )
    return TeacherCache(folder, manifest, tail)


def verify(
    folder: str | Path,
    teacher: ChatModel,
    rows: Sequence[dict] | Dataset,
    *,
    n: int = 32,
    tolerance: float = 0.02,
    batch_size: int = 32,
    seed: int = 0,
) -> dict[int, float]:
    """Check every file, ask the teacher again for `n` of the rows, say which differ.

    Returns {row number: distance} of those that differ, the largest total variation
    distance of a position, in 0..1; it is empty where all is well. `tolerance` leaves
    room for rounding, and for one draw of a `sampled` cache. Raises `CacheError` for a
    damaged file, another teacher or tokenizer, and a row that the cache lacks.
    """
    cache = open_cache(folder, teacher=teacher)
    cache.check_files()
    settings = cache.settings
    if settings["kind"] == "sampled":
        tolerance += 1 / settings["samples"]
    record = _Recorder(teacher.model, settings)
    generator = torch.Generator().manual_seed(seed)
    chosen = torch.randperm(len(rows), generator=generator)[:n].tolist()
    differing = {}
    for start in range(0, len(chosen), batch_size):
        numbers = chosen[start : start + batch_size]
        window = [_item(rows[number]) for number in numbers]
        batch = collate([item.row for item in window], pad_token_id=0)
        stored = _probabilities(cache(batch), settings["vocab"])
        fresh = _probabilities(cache.targets(record(window)), settings["vocab"])
        distances = (stored - fresh).abs().sum(-1) / 2
        for number, part in zip(
            numbers, distances.split([item.kept for item in window]), strict=True
        ):
            if len(part) and not part.max() <= tolerance:
                differing[number] = part.max().item()
    return differing


class TeacherCache:
    """An open cache: a signal (`train.Signal`) that is read instead of computed.

    Only an index, some 250 bytes a row, is held in memory; the shards are mapped, each
    compared with its checksum when it is first read. `len` counts rows.
    """

    def __init__(self, folder: Path, manifest: dict, tail: str = "bucket"):
        self.folder, self.tail = folder, tail
        self.settings, self.files = manifest["settings"], manifest["files"]
        self._checked = set()
        self._shards = {
            name: _map_file(folder / name, entry)
            for name, entry in self.files.items()
            if name != HEAD
        }
        self._index = {
            key.tobytes(): (name, place)
            for name, shard in self._shards.items()
            for place, key in enumerate(shard["keys"].numpy())
        }
        if not self._index:
            raise CacheError(f"{folder}: no row in it; run write_cache again")

    def __len__(self) -> int:
        return len(self._index)

    @property
    def tokens(self) -> int:
        """Positions that it holds a signal for."""
        return sum(self.files[name]["tokens"] for name in self._shards)

    @property
    def bytes_per_token(self) -> float:
        """Bytes on disk by position; the output matrix, stored once, is left out."""
        return sum(self.files[name]["bytes"] for name in self._shards) / self.tokens

    @property
    def kept_mass(self) -> float:
        """The teacher's mean probability of the tokens that a topk cache holds."""
        entries = [self.files[name] for name in self._shards]
        return sum(e["kept_mass"] * e["tokens"] for e in entries) / self.tokens

    def __call__(self, batch: dict[str, Tensor]) -> Tensor | SparseTargets:
        """Targets of the batch's N kept positions, on its device."""
        return self.targets(self.read(batch))

    def read(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        """What is stored for the N kept positions of a batch, in their order."""
        device = batch["labels"].device
        ids, labels, there = (
            batch[name].cpu() for name in ("input_ids", "labels", "attention_mask")
        )
        stored = _concatenate(
            self._find(row_key(ids[number][real], labels[number][real]), number)
            for number, real in enumerate(there.bool())
        )
        return {name: values.to(device) for name, values in stored.items()}

    def targets(self, stored: dict[str, Tensor]) -> Tensor | SparseTargets:
        """Stored tensors as the loss wants them: (N, V), or `SparseTargets`."""
        kind = self.settings["kind"]
        if kind == "dense":
            return stored["logprobs"]
        if kind == "hidden":
            device = stored["hidden"].device
            self.head = {name: value.to(device) for name, value in self.head.items()}
            return _replay(stored["hidden"], self.head, self.settings["softcap"])
        token_ids = _unpack(stored["token_ids"])
        if kind == "sampled":
            logprobs, tail = _log_shares(token_ids), "sampled"
        else:
            logprobs, tail = stored["logprobs"].float(), self.tail
            # Rounded to float16 they do not sum to their mass: set that right.
            mass = torch.log1p(-stored["tail"].float().exp())[:, None]
            logprobs = logprobs.log_softmax(-1) + mass
        return SparseTargets(token_ids, logprobs, tail, self.settings["temperature"])

    @cached_property
    def head(self) -> dict[str, Tensor]:
        """The teacher's output matrix: `weight` (V, H), and `bias` where it has one."""
        self._check(HEAD)
        return _map_file(self.folder / HEAD, self.files[HEAD])

    def check_files(self) -> None:
        """Compare every file with its checksum; `CacheError` names a damaged one."""
        for name in self.files:
            self._check(name)

    def _check(self, name: str) -> None:
        if name not in self._checked:
            _check_file(self.folder / name, self.files[name])
            self._checked.add(name)

    def _find(self, key: bytes, number: int) -> dict[str, Tensor]:
        """What is stored for one row: views of the mapped file."""
        if key not in self._index:
            self.check_files()  # else a damaged file is to blame
            other = any(stored[:12] == key[:12] for stored in self._index)
            raise CacheError(
                f"{self.folder}: row {number} of the batch is not in it"
                f"{' with these labels' if other else ''}. Rows and tokenizer must be "
                "those of write_cache; run it with these rows to add what is missing"
            )
        name, place = self._index[key]
        self._check(name)
        shard = self._shards[name]
        start, stop = shard["offsets"][place : place + 2].tolist()
        return {
            name: values[start:stop]
            for name, values in shard.items()
            if name not in ("keys", "offsets")
        }


def row_key(input_ids: Tensor, labels: Tensor) -> bytes:
    """Hash of a row's ids and of the positions that its labels keep; both (T,)."""
    ids = input_ids.numpy().astype("<i4").tobytes()
    kept = shift_and_mask(labels)[1].numpy().tobytes()
    parts = (hashlib.blake2b(ids, digest_size=12), hashlib.blake2b(kept, digest_size=4))
    return b"".join(part.digest() for part in parts)


# ---------------------------------------------------------------- recording


class _Item(NamedTuple):
    key: bytes
    kept: int  # positions
    row: dict


def _item(row: dict) -> _Item:
    ids, labels = torch.tensor(row["input_ids"]), torch.tensor(row["labels"])
    kept = shift_and_mask(labels)[1].sum().item()
    return _Item(row_key(ids, labels), kept, row)


def _windows(
    rows: Iterable[dict], done: set[bytes], tokens: float
) -> Iterator[list[_Item]]:
    """Rows that are not done, in groups of about so many kept positions."""
    window, size = [], 0
    for row in rows:
        item = _item(row)
        if item.key in done:
            continue
        done.add(item.key)
        window.append(item)
        size += item.kept
        if size >= tokens:
            yield window
            window, size = [], 0
    if window:
        yield window


class _Recorder:
    """Runs the teacher on rows and returns what the cache stores of them, in order."""

    def __init__(self, model: PreTrainedModel, settings: dict):
        self.model, self.settings = model, settings
        self.teacher = LiveTeacher(model, settings["vocab"])
        matrix = model.get_output_embeddings()
        self.head = {}  # of hidden alone
        if settings["kind"] == "hidden":
            for name, value in matrix.named_parameters():
                self.head[name] = value.detach()[: settings["vocab"]].cpu().contiguous()
        width = _id_bytes(settings["vocab"])
        self.bytes_per_token = {
            "topk": settings["k"] * (width + 2) + 2,
            "sampled": settings["samples"] * width,
            "hidden": matrix.weight.shape[1] * matrix.weight.element_size(),
            "dense": settings["vocab"] * 2,
        }[settings["kind"]]
        self.replayed = False

    def __call__(self, window: Sequence[_Item]) -> dict[str, Tensor]:
        batch = collate([item.row for item in window], pad_token_id=0)
        batch = {name: value.to(self.model.device) for name, value in batch.items()}
        entered = []  # what the output matrix was given
        hook = self.model.get_output_embeddings().register_forward_pre_hook(
            lambda module, inputs: entered.append(inputs[0])
        )
        with hook:
            logits = self.teacher(batch)  # (N, V)
        if logits.isnan().any():
            raise FloatingPointError(
                "the teacher's logits are not numbers: load it in float32 or bfloat16"
            )
        if self.settings["kind"] == "hidden":
            return {"hidden": self._checked(entered[0], logits).cpu()}
        stored = self._stored(logits.float(), window)
        return {name: value.cpu() for name, value in stored.items()}

    def _stored(self, logits: Tensor, window: Sequence[_Item]) -> dict[str, Tensor]:
        settings = self.settings
        logprobs = (logits / settings["temperature"]).log_softmax(-1)
        if settings["kind"] == "dense":
            return {"logprobs": _half(logprobs)}
        if settings["kind"] == "topk":
            known, ids = logprobs.topk(settings["k"])
            tail = logprobs.scatter(-1, ids, -torch.inf).logsumexp(-1)
            packed = _pack(ids, settings["vocab"])
            return {"token_ids": packed, "logprobs": _half(known), "tail": _half(tail)}
        # A row's draws come from a seed of its own, whatever the batch and the device.
        draws = torch.cat([_uniform(item, settings["samples"]) for item in window])
        ends = logprobs.exp().cumsum(-1)
        ids = torch.searchsorted(ends, draws.to(ends) * ends[:, -1:], right=True)
        ids = ids.clamp(max=settings["vocab"] - 1).sort(-1).values
        return {"token_ids": _pack(ids, settings["vocab"])}

    def _checked(self, hidden: Tensor, logits: Tensor) -> Tensor:
        """The hidden states, once it is sure that they give the teacher's logits."""
        if not self.replayed:
            head = {name: value.to(hidden.device) for name, value in self.head.items()}
            again = _replay(hidden, head, self.settings["softcap"])
            limit = 1e-2 if hidden.element_size() == 2 else 1e-4
            if not torch.allclose(again.float(), logits.float(), limit, limit):
                raise CacheError(
                    "this teacher does more to its logits than an output matrix and a "
                    "soft cap, so hidden states cannot replay it: use topk or sampled"
                )
            self.replayed = True
        return hidden


def _settings(teacher, kind, k, samples, temperature, vocab) -> dict:
    """All that two runs of write_cache must agree on to fill the same folder."""
    if kind not in KINDS:
        raise ValueError(f"no kind {kind!r}; choose one of {', '.join(KINDS)}")
    if temperature <= 0 or k < 1 or samples < 1:
        raise ValueError("needed: temperature > 0, k >= 1 and samples >= 1")
    if temperature != 1 and kind in ("hidden", "dense"):
        raise ValueError(
            f"a {kind} cache serves every temperature: write it without one and give "
            "it to the loss"
        )
    config = teacher.model.config.get_text_config()
    vocab = vocab or config.vocab_size
    return {
        "format": 1,
        "kind": kind,
        "k": min(k, vocab) if kind == "topk" else 0,
        "samples": samples if kind == "sampled" else 0,
        "temperature": temperature,
        "vocab": vocab,
        "softcap": getattr(config, "final_logit_softcapping", None),
        "weights": weights_hash(teacher.model),
        "tokenizer": _tokenizer_hash(teacher.tokenizer, vocab),
        "template": _template_hash(teacher.tokenizer),
    }


def _uniform(item: _Item, samples: int) -> Tensor:
    """Numbers in 0..1, (positions, samples), the same whenever this row is recorded."""
    seed = int.from_bytes(item.key[:7], "big")
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(item.kept, samples, generator=generator)


# ---------------------------------------------------------------- numbers to bytes


def _half(logprobs: Tensor) -> Tensor:
    return logprobs.clamp(min=LOWEST).half()


def _id_bytes(vocab: int) -> int:
    """Bytes that hold the largest id: 2 up to 65,536 tokens, 3 up to 16.7 million."""
    return ((vocab - 1).bit_length() + 7) // 8


def _pack(ids: Tensor, vocab: int) -> Tensor:
    """Ids (N, K) as their bytes (N, K, 2 or 3), the lowest first."""
    lowest_first = [ids >> 8 * i & 255 for i in range(_id_bytes(vocab))]
    return torch.stack(lowest_first, dim=-1).to(torch.uint8)


def _unpack(packed: Tensor) -> Tensor:
    return sum(packed[..., i].long() << 8 * i for i in range(packed.shape[-1]))


def _log_shares(ids: Tensor) -> Tensor:
    """Draws, sorted (N, S) -> log of each token's share, -inf where it is repeated."""
    counts = torch.searchsorted(ids, ids, right=True) - torch.searchsorted(ids, ids)
    repeated = F.pad(ids[:, 1:] == ids[:, :-1], (1, 0))
    return (counts / ids.shape[-1]).log().masked_fill(repeated, -torch.inf)


def _replay(hidden: Tensor, head: dict[str, Tensor], softcap: float | None) -> Tensor:
    """The teacher's logits (N, V) from what entered its output matrix (N, H)."""
    logits = F.linear(hidden, head["weight"], head.get("bias"))
    return logits if softcap is None else softcap * torch.tanh(logits / softcap)


def _probabilities(targets: Tensor | SparseTargets, vocab: int) -> Tensor:
    """(N, V) of any targets; what a sparse one does not know is 0."""
    if not isinstance(targets, SparseTargets):
        return targets.float().softmax(-1)
    nothing = torch.zeros(len(targets.token_ids), vocab)
    return nothing.scatter_add(1, targets.token_ids, targets.logprobs.exp())


def _concatenate(pieces: Iterable[dict[str, Tensor]]) -> dict[str, Tensor]:
    pieces = list(pieces)
    return {name: torch.cat([piece[name] for piece in pieces]) for name in pieces[0]}


# ---------------------------------------------------------------- files


def _resume(folder: Path, settings: dict) -> tuple[dict, set[bytes]]:
    """The manifest, without damaged shards, and the keys of the rows that are done."""
    folder.mkdir(parents=True, exist_ok=True)
    if not (folder / MANIFEST).exists():
        return {"teacher": None, "settings": settings, "files": {}}, set()
    manifest = _read_manifest(folder)
    for name, value in settings.items():
        if (there := manifest["settings"].get(name)) != value:
            raise CacheError(
                f"{folder}: written by {manifest['teacher']} with {name} = {there}, "
                f"not {value}: choose another folder, or delete this one"
            )
    done = set()
    for name, entry in list(manifest["files"].items()):
        try:
            _check_file(folder / name, entry)
        except CacheError as error:
            warnings.warn(f"{error} (being done now)", stacklevel=3)
            del manifest["files"][name]
            continue
        if name != HEAD:
            keys = _map_file(folder / name, entry)["keys"].numpy()
            done.update(key.tobytes() for key in keys)
    return manifest, done


def _save(path: Path, tensors: dict[str, Tensor]) -> dict:
    """Write beside the place and move: the file is whole or not there."""
    part = path.with_name(path.name + ".part")
    save_file(tensors, part)
    entry = {"bytes": part.stat().st_size, "blake2b": _digest(part)}
    part.replace(path)
    return entry


def _read_manifest(folder: Path) -> dict:
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


def _map_file(path: Path, entry: dict) -> dict[str, Tensor]:
    """The file's tensors, mapped: bytes are read when they are looked at."""
    _check_size(path, entry)
    try:
        with safe_open(path, "pt") as file:
            return {name: file.get_tensor(name) for name in file.keys()}
    except SafetensorError as error:
        raise CacheError(_damaged(path, str(error))) from None


def _check_size(path: Path, entry: dict) -> None:
    if not path.exists():
        raise CacheError(_damaged(path, "it is missing"))
    if path.stat().st_size != entry["bytes"]:
        size = path.stat().st_size
        raise CacheError(_damaged(path, f"{size} bytes in place of {entry['bytes']}"))


def _check_file(path: Path, entry: dict) -> None:
    _check_size(path, entry)
    if _digest(path) != entry["blake2b"]:
        raise CacheError(_damaged(path, "its checksum is another"))


def _damaged(path: Path, what: str) -> str:
    return f"{path}: {what}. Run write_cache again with the same rows to write it anew"


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, lambda: hashlib.blake2b(digest_size=16))
    return digest.hexdigest()


def _tokenizer_hash(tokenizer: PreTrainedTokenizerBase, vocab: int) -> str:
    """Of the shared ids and their tokens."""
    words = sorted((i, word) for word, i in tokenizer.get_vocab().items() if i < vocab)
    return hashlib.blake2b(json.dumps(words).encode(), digest_size=16).hexdigest()


def _template_hash(tokenizer: PreTrainedTokenizerBase) -> str:
    """Of what the chat template makes of a conversation, not of how it is written."""
    text = rendered(tokenizer) if getattr(tokenizer, "chat_template", None) else ""
    return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()
