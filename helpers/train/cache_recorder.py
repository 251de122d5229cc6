"""Recording for a cache: each row gets its key, and the teacher runs on it once."""

import hashlib
import json
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from ..data.tokens import collate
from ..losses.positions import shift_and_mask
from ..models.loading import weights_hash
from ..models.vocabulary import rendered
from .cache_codec import half, id_bytes, pack, replay
from .cache_files import CacheError
from .signals import LiveTeacher

KINDS = ("topk", "sampled", "hidden", "dense")


def row_key(input_ids: Tensor, labels: Tensor) -> bytes:
    """Hash of a row's ids and of the positions that its labels keep; both (T,)."""
    ids = input_ids.numpy().astype("<i4").tobytes()
    kept = shift_and_mask(labels)[1].numpy().tobytes()
    parts = (hashlib.blake2b(ids, digest_size=12), hashlib.blake2b(kept, digest_size=4))
    return b"".join(part.digest() for part in parts)


class Item(NamedTuple):
    """A row on its way into the cache."""

    key: bytes
    kept: int  # positions
    row: dict


def item_of(row: dict) -> Item:
    """The row with its key, and how many positions its labels keep."""
    ids, labels = torch.tensor(row["input_ids"]), torch.tensor(row["labels"])
    kept = shift_and_mask(labels)[1].sum().item()
    return Item(row_key(ids, labels), kept, row)


def windows(
    rows: Iterable[dict], done: set[bytes], tokens: float
) -> Iterator[list[Item]]:
    """Rows that are not done, in groups of about so many kept positions."""
    window, size = [], 0
    for row in rows:
        item = item_of(row)
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


class Recorder:
    """Runs the teacher on rows and returns what the cache stores of them, in order."""

    def __init__(self, model: PreTrainedModel, settings: dict):
        self.model, self.settings = model, settings
        self.teacher = LiveTeacher(model, settings["vocab"])
        matrix = model.get_output_embeddings()
        self.head = {}  # of hidden alone
        if settings["kind"] == "hidden":
            for name, value in matrix.named_parameters():
                self.head[name] = value.detach()[: settings["vocab"]].cpu().contiguous()
        width = id_bytes(settings["vocab"])
        self.bytes_per_token = {
            "topk": settings["k"] * (width + 2) + 2,
            "sampled": settings["samples"] * width,
            "hidden": matrix.weight.shape[1] * matrix.weight.element_size(),
            "dense": settings["vocab"] * 2,
        }[settings["kind"]]
        self.replayed = False

    def __call__(self, window: Sequence[Item]) -> dict[str, Tensor]:
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

    def _stored(self, logits: Tensor, window: Sequence[Item]) -> dict[str, Tensor]:
        settings = self.settings
        logprobs = (logits / settings["temperature"]).log_softmax(-1)
        if settings["kind"] == "dense":
            return {"logprobs": half(logprobs)}
        if settings["kind"] == "topk":
            known, ids = logprobs.topk(settings["k"])
            tail = logprobs.scatter(-1, ids, -torch.inf).logsumexp(-1)
            packed = pack(ids, settings["vocab"])
            return {"token_ids": packed, "logprobs": half(known), "tail": half(tail)}
        # A row's draws come from a seed of its own, whatever the batch and the device.
        draws = torch.cat([_uniform(item, settings["samples"]) for item in window])
        ends = logprobs.exp().cumsum(-1)
        ids = torch.searchsorted(ends, draws.to(ends) * ends[:, -1:], right=True)
        ids = ids.clamp(max=settings["vocab"] - 1).sort(-1).values
        return {"token_ids": pack(ids, settings["vocab"])}

    def _checked(self, hidden: Tensor, logits: Tensor) -> Tensor:
        """The hidden states, once it is sure that they give the teacher's logits."""
        if not self.replayed:
            head = {name: value.to(hidden.device) for name, value in self.head.items()}
            again = replay(hidden, head, self.settings["softcap"])
            limit = 1e-2 if hidden.element_size() == 2 else 1e-4
            if not torch.allclose(again.float(), logits.float(), limit, limit):
                raise CacheError(
                    "this teacher does more to its logits than an output matrix and a "
                    "soft cap, so hidden states cannot replay it: use topk or sampled"
                )
            self.replayed = True
        return hidden


def cache_settings(teacher, kind, k, samples, temperature, vocab) -> dict:
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
        "tokenizer": tokenizer_hash(teacher.tokenizer, vocab),
        "template": template_hash(teacher.tokenizer),
    }


def _uniform(item: Item, samples: int) -> Tensor:
    """Numbers in 0..1, (positions, samples), the same whenever this row is recorded."""
    seed = int.from_bytes(item.key[:7], "big")
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(item.kept, samples, generator=generator)


def concatenate(pieces: Iterable[dict[str, Tensor]]) -> dict[str, Tensor]:
    """Pieces of equal names, one after the other."""
    pieces = list(pieces)
    return {name: torch.cat([piece[name] for piece in pieces]) for name in pieces[0]}


def tokenizer_hash(tokenizer: PreTrainedTokenizerBase, vocab: int) -> str:
    """Of the shared ids and their tokens."""
    words = sorted((i, word) for word, i in tokenizer.get_vocab().items() if i < vocab)
    return hashlib.blake2b(json.dumps(words).encode(), digest_size=16).hexdigest()


def template_hash(tokenizer: PreTrainedTokenizerBase) -> str:
    """Of what the chat template makes of a conversation, not of how it is written."""
    text = rendered(tokenizer) if getattr(tokenizer, "chat_template", None) else ""
    return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()
