"""Teacher signals on disk: run the teacher once, then train from files.

A cache is a folder. `manifest.json` says whose signal it holds and lists every file
with its checksum; shards of safetensors hold the signal at the positions whose label is
kept, row after row. A row is found by a hash of its input ids and of those positions,
never by its number, so that it cannot land on another example.
"""

from collections.abc import Iterable, Sequence
from functools import cached_property
from itertools import count
from pathlib import Path

import numpy as np
import torch
from datasets import Dataset
from torch import Tensor
from tqdm.auto import tqdm
from transformers import PreTrainedTokenizerBase

from ..data.jsonl import write_json
from ..data.tokens import collate
from ..losses.sparse import SparseTargets
from ..models.loading import ChatModel, name_of, weights_hash
from .cache_codec import log_shares, probabilities, replay, unpack
from .cache_files import (
    HEAD,
    MANIFEST,
    CacheError,
    check_file,
    map_file,
    read_manifest,
    resume,
    save,
)
from .cache_recorder import (
    Recorder,
    cache_settings,
    concatenate,
    item_of,
    row_key,
    template_hash,
    tokenizer_hash,
    windows,
)

KEY_BYTES = 16  # 12 of the input ids, 4 of the kept positions


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
    settings = cache_settings(teacher, kind, k, samples, temperature, vocab)
    record = Recorder(teacher.model, settings)
    manifest, done = resume(folder, settings)
    manifest["teacher"], files = name_of(teacher), manifest["files"]
    if kind == "hidden" and HEAD not in files:
        files[HEAD] = save(folder / HEAD, record.head)
    total = len(rows) if hasattr(rows, "__len__") else None
    bar = tqdm(rows, "cache", total=total, disable=not progress)
    for window in windows(bar, done, shard_bytes / record.bytes_per_token):
        window.sort(key=lambda item: len(item.row["input_ids"]))  # pads less
        shard = concatenate(
            record(window[start : start + batch_size])
            for start in range(0, len(window), batch_size)
        )
        ends = np.cumsum([0, *(item.kept for item in window)])
        keys = np.frombuffer(b"".join(item.key for item in window), np.uint8)
        shard["offsets"] = torch.tensor(ends)
        shard["keys"] = torch.tensor(keys).view(len(window), KEY_BYTES)
        names = (f"shard-{number:05}.safetensors" for number in count())
        name = next(name for name in names if name not in files)
        files[name] = save(folder / name, shard)
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
    manifest = read_manifest(folder)
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
        if tokenizer_hash(tokenizer, settings["vocab"]) != settings["tokenizer"]:
            raise CacheError(
                f"{folder}: written with another tokenizer, so that ids do not mean "
                "the same. Use a teacher with the student's tokenizer and write a new "
                "cache, or train on the teacher's text"
            )
        if template_hash(tokenizer) != settings["template"]:
            raise CacheError(
                f"{folder}: written under another chat template, so that rows of this "
                "tokenizer are not what the teacher was asked. Give the student the "
                "teacher's: student.tokenizer.chat_template = "
                "teacher.tokenizer.chat_template, and encode the rows anew"
            )
    return TeacherCache(folder, manifest, tail)


def verify_cache(
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
    record = Recorder(teacher.model, settings)
    generator = torch.Generator().manual_seed(seed)
    chosen = torch.randperm(len(rows), generator=generator)[:n].tolist()
    differing = {}
    for start in range(0, len(chosen), batch_size):
        numbers = chosen[start : start + batch_size]
        window = [item_of(rows[number]) for number in numbers]
        batch = collate([item.row for item in window], pad_token_id=0)
        stored = probabilities(cache(batch), settings["vocab"])
        fresh = probabilities(cache.targets(record(window)), settings["vocab"])
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
            name: map_file(folder / name, entry)
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
        stored = concatenate(
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
            return replay(stored["hidden"], self.head, self.settings["softcap"])
        token_ids = unpack(stored["token_ids"])
        if kind == "sampled":
            logprobs, tail = log_shares(token_ids), "sampled"
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
        return map_file(self.folder / HEAD, self.files[HEAD])

    def check_files(self) -> None:
        """Compare every file with its checksum; `CacheError` names a damaged one."""
        for name in self.files:
            self._check(name)

    def _check(self, name: str) -> None:
        if name not in self._checked:
            check_file(self.folder / name, self.files[name])
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
