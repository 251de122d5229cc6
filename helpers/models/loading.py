"""Load teachers and students from a folder or the hub, ready to be used.

Ready: with a chat template, an end of answers and a token to pad with, in eval mode,
and in 4 bits where that is asked for.
"""

import hashlib
import warnings
from pathlib import Path
from typing import NamedTuple

import torch
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoTokenizer,
    BitsAndBytesConfig,
    PretrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)
from transformers.pytorch_utils import Conv1D

from ..tracks import Track, best_device
from .hub import ModelError, check_folder, explained, origin
from .vocabulary import check_templates, shared_vocab

SAFE = {"trust_remote_code": False}  # no code from the hub is ever run

# For a model that has no chat template: any will do that is kept to.
PLAIN_TEMPLATE = (
    "{{ bos_token }}{% for m in messages %}{{ m['role'] | capitalize }}: "
    "{{ m['content'] }}{% if m['role'] == 'assistant' %}{{ eos_token }}{% endif %}"
    "{{ '\n' }}{% endfor %}{% if add_generation_prompt %}Assistant: {% endif %}"
)
# Before a template that prints today's date, which would make other rows, and miss
# every cache, tomorrow; or that lets a model think aloud unless it is told not to.
STEADY = (
    "{%- macro strftime_now(format) -%}26 Jul 2024{%- endmacro -%}"
    "{%- set enable_thinking = enable_thinking | default(false) %}"
)


class ChatModel(NamedTuple):
    """A causal language model with the tokenizer that belongs to it."""

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase


def load_teacher(track: Track) -> ChatModel:
    """The track's teacher, in eval mode; none of its parameters can be trained.

    Warns where the track has it in 4 bits.
    """
    if track.quantise_teacher:
        warnings.warn(
            "the teacher is loaded in 4 bits: it gives the signal of a coarser model. "
            "Compare its answers, and evaluate.agreement, with those of the full one "
            "on a few rows, or cache the signal of the full one on a larger machine",
            stacklevel=2,
        )
    teacher = _load(track.teacher, track, track.quantise_teacher)
    teacher.model.requires_grad_(False)
    return teacher


def load_student(track: Track) -> ChatModel:
    """The track's student base, before any distillation, in eval mode."""
    return _load(track.student, track, track.quantise_student)


def _load(name: str, track: Track, quantise: bool) -> ChatModel:
    settings = {"device": track.device, "dtype": track.dtype}
    return load(name, quantise="nf4" if quantise else None, **settings)


def load(
    name: str | Path,
    *,
    device: str | None = None,
    dtype: torch.dtype | None = None,
    quantise: str | None = None,
) -> ChatModel:
    """Load a local folder or a hub id, in eval mode. Only safetensors, no foreign code.

    - device: by default the best there is; dtype: by default float32 on a CPU, and
      bfloat16 elsewhere.
    - quantise: "nf4" packs linear layers into 4 bits with double quantisation (Dettmers
      et al. 2023), computing in `dtype`. The output layer is left as it is, and so are
      layers whose rows are no multiple of 64, which some processors cannot multiply.

    The tokenizer is made ready: it has a chat template (a plain one, with a warning,
    where the model brings none) that neither prints today's date nor asks the model to
    think aloud; `eos_token` is the token that closes an answer in this template; and it
    has a token to pad with.

    Raises `FileNotFoundError` for a folder that is not there and `ModelError` for all
    else that fails, in one line that says what to do.
    """
    device = device or best_device()
    dtype = dtype or (torch.float32 if device == "cpu" else torch.bfloat16)
    check_folder(Path(name))
    with explained(str(name)):
        config = AutoConfig.from_pretrained(name, **SAFE)  # fails early, and is small
        tokenizer = AutoTokenizer.from_pretrained(name, **SAFE)
        model, report = AutoModelForCausalLM.from_pretrained(
            name,
            dtype=dtype,
            device_map={"": device},
            quantization_config=_quantisation(quantise, config, device, dtype),
            use_safetensors=True,
            output_loading_info=True,
            **SAFE,
        )
    if missing := sorted(report["missing_keys"]):
        raise ModelError(
            f"{name}: its files lack {len(missing)} of the model's weights, the first "
            f"is {missing[0]}, and random ones would take their place: fetch it again, "
            "or take the causal language model of this family"
        )
    if device == "cpu":
        _keep_trainable(model)
    _make_ready(tokenizer, str(name))
    return ChatModel(model.eval(), tokenizer)


def check_pair(student: ChatModel, teacher: ChatModel) -> int:
    """All that must agree before logits are compared; returns the shared columns.

    Give the result as `vocab` to `train.write_cache` and `train.fit`. Raises
    `VocabularyMismatch` or `TemplateMismatch`, with the first difference and the cure.
    """
    configs = student.model.config, teacher.model.config
    vocab = shared_vocab(student.tokenizer, teacher.tokenizer, *configs)
    check_templates(student.tokenizer, teacher.tokenizer)
    return vocab


def end_tokens(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> list[int]:
    """All ids that end an answer: the template's, and those the model itself names."""
    ends = {tokenizer.eos_token_id}
    for settings in (model.generation_config, model.config.get_text_config()):
        named = getattr(settings, "eos_token_id", None)
        ends.update(named if isinstance(named, list) else [named])
    return sorted(ends - {None})


def name_of(chat: ChatModel) -> str:
    """A hub id, or the last part of a local folder: no path of this machine."""
    return origin(chat.model.config._name_or_path)[0]


def weights_hash(model: PreTrainedModel) -> str:
    """Of names, shapes, types and about a thousand values of every weight."""
    digest = hashlib.blake2b(digest_size=16)
    for name, value in sorted(model.state_dict().items()):
        some = value.flatten()[:: max(1, value.numel() // 1024)].float().cpu()
        digest.update(f"{name} {tuple(value.shape)} {value.dtype}".encode())
        digest.update(some.numpy().tobytes())
    return digest.hexdigest()


# ---------------------------------------------------------------- tokenizers


def _make_ready(tokenizer: PreTrainedTokenizerBase, name: str) -> None:
    """Template, end of an answer, and padding, as `load` promises them."""
    if tokenizer.eos_token is None:
        raise ModelError(
            f"{name}: its tokenizer has no end-of-text token, so that no answer could "
            "end; set eos_token in its tokenizer_config.json"
        )
    if not tokenizer.chat_template:
        tokenizer.chat_template = PLAIN_TEMPLATE
        warnings.warn(
            f"{name} has no chat template and got a plain one (User: … Assistant: …). "
            "As a student it will learn it; as a teacher take the instruct version. "
            "Beside a teacher, give the student the teacher's template",
            stacklevel=3,
        )
    template = tokenizer.get_chat_template()
    if "strftime_now" in template or "enable_thinking" in template:
        tokenizer.chat_template = STEADY + template
    tokenizer.eos_token = _end_of_answer(tokenizer) or tokenizer.eos_token
    if tokenizer.pad_token is None:  # masks come from lengths: any token will do
        tokenizer.pad_token = tokenizer.eos_token


def _end_of_answer(tokenizer: PreTrainedTokenizerBase) -> str | None:
    """The special token that the template puts behind an answer: Gemma's is not its
    end of text, and a student that never saw it learnt would not stop."""
    turns = [{"role": "user", "content": "?"}, {"role": "assistant", "content": "Yes."}]
    whole = tokenizer.apply_chat_template(turns, tokenize=False)
    after = tokenizer(whole.rpartition("Yes.")[2], add_special_tokens=False)
    special = tokenizer.added_tokens_decoder
    ends = [i for i in after["input_ids"] if i in special and special[i].special]
    return special[ends[0]].content if ends else None


# ---------------------------------------------------------------- 4 bits


def _quantisation(
    quantise: str | None, config: PretrainedConfig, device: str, dtype: torch.dtype
) -> BitsAndBytesConfig | None:
    if quantise is None:
        return None
    if quantise != "nf4":
        raise ModelError(f'no quantisation {quantise!r}: choose "nf4" or None')
    if device == "mps":  # there bitsandbytes would fetch its code from the hub
        raise ModelError('4 bits need a CUDA GPU or a CPU: device="cpu", or None')
    return BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=dtype,
        llm_int8_skip_modules=_left_alone(config),  # holds for 4 bits, too
    )


def _keep_trainable(model: PreTrainedModel) -> None:
    """Keep 4-bit layers in the form that has a gradient.

    On processors with bfloat16 units bitsandbytes packs a layer anew when it is first
    used in eval mode. From then on it computes in bfloat16, stops every gradient
    without a word, and cannot be merged.
    """
    for module in model.modules():
        if hasattr(module, "support_avx512bf16_for_cpu"):
            module.support_avx512bf16_for_cpu = False


def _left_alone(config: PretrainedConfig) -> list[str]:
    """Names of the output layer and of layers whose rows are no multiple of 64."""
    with torch.device("meta"):  # shapes without numbers
        model = AutoModelForCausalLM.from_config(config, **SAFE)
    head, names = model.get_output_embeddings(), []
    for name, module in model.named_modules():
        width = getattr(module, "in_features", 0)
        if isinstance(module, Conv1D):  # GPT-2's linear layer, (in, out)
            width = len(module.weight)
        if module is head or width % 64:
            names.append(name)
    return names
