"""Load teachers and students, compare their vocabularies, add and merge LoRA
adapters."""

import copy
import warnings
from pathlib import Path
from typing import NamedTuple

import torch
from peft import LoraConfig, PeftModel, get_peft_model
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    PretrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)

from .tracks import Track


class ChatModel(NamedTuple):
    """A causal language model with the tokenizer that belongs to it."""

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase


class VocabularyMismatch(ValueError):
    """Two tokenizers whose ids do not mean the same; the message says where they
    differ."""


def load_teacher(track: Track) -> ChatModel:
    """The track's teacher, in eval mode; none of its parameters can be trained."""
    teacher = _load(track.teacher, track)
    teacher.model.requires_grad_(False)
    return teacher


def load_student(track: Track) -> ChatModel:
    """The track's student base, before any distillation, in eval mode."""
    return _load(track.student, track)


def _load(name: str | Path, track: Track) -> ChatModel:
    """Load a local folder or a hub id. Only safetensors, never code from the hub."""
    folder = Path(name)
    if folder.is_absolute() and not (folder / "config.json").exists():
        raise FileNotFoundError(
            f"no model in {folder.name}/ among the shipped weights: the clone is "
            "incomplete. Fetch the repository again, or run `make weights`"
        )
    safe = {"trust_remote_code": False}
    tokenizer = AutoTokenizer.from_pretrained(name, **safe)
    model = AutoModelForCausalLM.from_pretrained(
        name, dtype=track.dtype, use_safetensors=True, **safe
    )
    return ChatModel(model.to(track.device).eval(), tokenizer)


def shared_vocab(
    student_tokenizer: PreTrainedTokenizerBase,
    teacher_tokenizer: PreTrainedTokenizerBase,
    student_config: PretrainedConfig,
    teacher_config: PretrainedConfig,
) -> int:
    """How many rows of logits the two models share: slice both to it *before* softmax.

    Models of one family may carry different numbers of padded embedding rows over the
    same tokenizer (Qwen2.5: 151,936 and 152,064). Token t must have the same id in
    both.

    Raises `VocabularyMismatch`, naming the first id that differs and how many do; then
    logits cannot be compared, only the teacher's text can be learnt.
    """
    student, teacher = student_tokenizer.get_vocab(), teacher_tokenizer.get_vocab()
    size = min(len(student), len(teacher))
    by_id = [{i: token for token, i in vocab.items()} for vocab in (student, teacher)]
    differing = [i for i in range(size) if by_id[0].get(i) != by_id[1].get(i)]
    if differing:
        first = differing[0]
        raise VocabularyMismatch(
            f"{len(differing):,} of {size:,} ids differ; the first is id {first}: "
            f"student {by_id[0].get(first)!r}, teacher {by_id[1].get(first)!r}. "
            "Logits of these two cannot be compared; distil from the teacher's text"
        )
    rows = min(student_config.vocab_size, teacher_config.vocab_size)
    if rows < size:
        raise VocabularyMismatch(
            f"a model has {rows:,} rows of logits for {size:,} token ids: model and "
            "tokenizer do not belong together"
        )
    # Where one tokenizer goes on alone, the other's rows there are untrained padding.
    return size if len(student) != len(teacher) else rows


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
    x rank. The model handed in is copied, not changed.
    """
    config = LoraConfig(
        r=rank,
        lora_alpha=alpha if alpha is not None else 2 * rank,
        target_modules=targets,
        lora_dropout=dropout,
        task_type="CAUSAL_LM",
    )
    with warnings.catch_warnings():
        # peft asks for an attribute by its old name; nothing a learner could mend.
        warnings.filterwarnings("ignore", "`is_gradient_checkpointing`", FutureWarning)
        return get_peft_model(copy.deepcopy(model), config)


@torch.no_grad()
def merge(model: PeftModel, *, tolerance: float = 1e-4) -> PreTrainedModel:
    """Fold the adapter into the weights: a plain model that answers as the adapted one.

    The adapted model is left as it was. Raises `ValueError` when the logits of the two
    differ by more than `tolerance` on a probe (a base in 4 bits cannot hold the sum).
    """
    model.eval()
    merged = copy.deepcopy(model).merge_and_unload().eval()
    probe = torch.arange(min(64, merged.config.vocab_size), device=merged.device)[None]
    gap = (model(probe).logits - merged(probe).logits).abs().max().item()
    if gap > tolerance:
        raise ValueError(
            f"merging changed the logits by {gap:.2g} (allowed {tolerance:.2g}); "
            "merge into the base in its full precision, not into a quantised one"
        )
    return merged
