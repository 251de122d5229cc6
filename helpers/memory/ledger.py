"""What a training step or an answer needs in memory, before anything is downloaded.

Everything is computed from a model's configuration. The model itself is built on
torch's "meta" device, where tensors have shapes and no numbers: parameters are counted,
not estimated. With s bytes a number, n tokens in a batch, rows of T tokens, N positions
with a label, V words, hidden size H, and r the rank of LoRA:

- **weights**: s a parameter. In NF4 half a byte, and the scales (`nf4_bytes`).
- **adapters**: r (in + out) float32 numbers for each matrix of the blocks.
- **gradients**: as large as what is trained; **optimiser**: AdamW keeps two such.
- **activations**: what autograd keeps of a block (`_block_bytes`), times the blocks.
  With checkpointing (Chen et al. 2016) only the s n H that enter each block, and one
  block computed again. Counted operation by operation as in Korthikanti et al. 2022,
  whose own result, n H (34 + 5 heads T / H) bytes in half precision, is for another
  block: GELU, dropout, attention that keeps its scores.
- **loss head**: `EAGER_BYTES` x N V; fused, tiles that do not grow with N.

A step is fullest at one of a few moments; parts that are not there together are not
added. The formulas are those of a gated MLP with RMSNorm (Llama, Qwen, SmolLM, Phi-3,
Phi-4, Gemma) and torch's fused attention over a padded batch. Other families (GPT-2)
have the right weights but only roughly the right activations. Not counted: CUDA's own
memory, and what is lost between tensors (`verdicts.RESERVE`).
"""

import json
import tomllib
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

import torch
from torch.nn import Linear
from transformers import AutoConfig, AutoModelForCausalLM, PretrainedConfig
from transformers.modeling_layers import GradientCheckpointingLayer
from transformers.pytorch_utils import Conv1D

from ..losses import fused
from ..tracks import Track

GIB = 2**30
FACTS = Path(__file__).parent / "model_facts.toml"
# Bytes a position and word at the peak of `losses.loss_parts`, forward and backward, in
# float32 as in bfloat16: the logits of both models and the copies alive with them.
# Counted by tests/memory/test_ledger.py. None: cross-entropy alone; "sparse": few
# tokens.
EAGER_BYTES = {
    None: 12,
    "sparse": 24,
    "forward_kl": 32,
    "reverse_kl": 36,
    "tvd": 40,
    "skew_forward_kl": 52,
    "skew_reverse_kl": 56,
    "jsd": 72,
}
# Bytes a trained float32 number. In 8 bits a float32 scale serves 256 of them.
OPTIMISER_BYTES = {"adamw": 8, "paged-8bit": 2 * (1 + 4 / 256)}
# The parts that come and go in a step, and while an answer is written.
MOVING = ("gradients", "activations", "loss head")
ANSWERING = ("KV cache", "activations", "logits")


def facts() -> dict[str, dict]:
    """Hub name -> shape, vocabulary and licence of the models that the course names."""
    return tomllib.loads(FACTS.read_text(encoding="utf-8"))


def config_of(model: str | Path | PretrainedConfig) -> PretrainedConfig:
    """The configuration of a local folder or of a model in `facts`; nothing is loaded.

    Raises `ValueError` for a name that is neither.
    """
    if isinstance(model, PretrainedConfig):
        return model.get_text_config()
    if (Path(model) / "config.json").exists():
        return AutoConfig.from_pretrained(model, trust_remote_code=False)
    shape = facts().get(str(model))
    if shape is None:
        raise ValueError(
            f"no configuration of {model}: download its config.json into a folder and "
            f"give the folder, or add it to {FACTS.name}, which knows "
            f"{', '.join(facts())}"
        )
    settings = {k: v for k, v in shape.items() if k not in ("vocabulary", "licence")}
    return AutoConfig.for_model(**settings)


class Shape(NamedTuple):
    """The sizes of a model that its memory depends on."""

    parameters: int
    matrices: tuple[tuple[int, int], ...]  # (in, out) of the blocks' linear layers
    blocks: int
    hidden: int
    vocab: int
    tied: bool
    heads: int
    key_heads: int
    head_size: int
    inner: int  # of the MLP
    norms: int  # of width `hidden` in a block
    head_norms: bool  # queries and keys are normalised, too

    def adapter(self, rank: int) -> int:
        """Parameters of LoRA on every matrix of the blocks."""
        return sum(rank * (rows + columns) for rows, columns in self.matrices)


def shape(model: str | Path | PretrainedConfig) -> Shape:
    """Count a model from its configuration, without memory for its weights."""
    return _shape(config_of(model).to_json_string())


@lru_cache
def _shape(settings: str) -> Shape:
    config = AutoConfig.for_model(**json.loads(settings))
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config)
    head = model.get_output_embeddings()
    matrices = [
        tuple(m.weight.shape[::-1] if isinstance(m, Linear) else m.weight.shape)
        for m in model.modules()
        if isinstance(m, (Linear, Conv1D)) and m is not head
    ]
    block = next(
        m for m in model.modules() if isinstance(m, GradientCheckpointingLayer)
    )
    heads = config.num_attention_heads
    head_size = getattr(config, "head_dim", None) or config.hidden_size // heads
    normalised = [m.weight.numel() for m in block.modules() if _is_norm(m)]
    return Shape(
        parameters=sum(p.numel() for p in model.parameters()),
        matrices=tuple(matrices),
        blocks=config.num_hidden_layers,
        hidden=config.hidden_size,
        vocab=config.vocab_size,
        tied=head.weight is model.get_input_embeddings().weight,
        heads=heads,
        key_heads=getattr(config, "num_key_value_heads", None) or heads,
        head_size=head_size,
        inner=getattr(config, "intermediate_size", None) or 4 * config.hidden_size,
        norms=normalised.count(config.hidden_size),
        head_norms=head_size in normalised,
    )


def _is_norm(module: torch.nn.Module) -> bool:
    return "Norm" in type(module).__name__


# ---------------------------------------------------------------- the ledger


@dataclass(frozen=True)
class Ledger:
    """The parts of memory at the fullest moment, in bytes. Print it to read it."""

    title: str
    moment: str
    parts: dict[str, int]

    @property
    def total(self) -> int:
        """Bytes."""
        return sum(self.parts.values())

    def __str__(self) -> str:
        rows = [*self.parts.items(), ("total", self.total)]
        lines = [f"  {name:<12}{size / GIB:8.2f} GiB" for name, size in rows if size]
        return "\n".join([f"{self.title}, fullest at {self.moment}", *lines])


@dataclass(frozen=True)
class Step:
    """What the memory of a training step depends on, beside the models. The names are
    those of `tracks.Track`."""

    batch_size: int
    max_length: int  # tokens of a padded row
    max_new_tokens: int  # labels in a row
    dtype: torch.dtype
    device: str
    lora_rank: int = 16  # 0: every weight is trained
    accumulation: int = 1
    checkpointing: bool = False
    quantise_student: bool = False
    quantise_teacher: bool = False
    teacher_signal: str = "live"  # "cached": the teacher is not there
    fused_head: bool = False  # hidden states go to `losses.linear_divergence`

    @classmethod
    def of(cls, track: Track) -> "Step":
        """The settings of a track; a teacher behind an address gives text alone."""
        shared = (name for name in cls.__annotations__ if hasattr(track, name))
        settings = {name: getattr(track, name) for name in shared}
        if track.teacher_url:
            settings["teacher_signal"] = "text"
        return cls(**settings)

    @property
    def tokens(self) -> int:
        return self.batch_size * self.max_length

    @property
    def positions(self) -> int:
        return self.batch_size * self.max_new_tokens

    @property
    def full(self) -> bool:
        return not self.lora_rank


def weights(model: Shape, dtype: torch.dtype, quantise: bool = False) -> int:
    """Bytes of all parameters. With `quantise` the blocks' matrices are in NF4, except
    where 64 does not divide a row; embeddings, output matrix and norms never are."""
    packed = [a * b for a, b in model.matrices if quantise and a % 64 == 0]
    rest = model.parameters - sum(packed)
    return rest * dtype.itemsize + sum(map(nf4_bytes, packed))


def nf4_bytes(numbers: int) -> int:
    """A matrix in NF4 with double quantisation (Dettmers et al. 2023): 4.127 bits each.

    Two numbers in a byte; for each 64 of them a scale of one byte; for each 256 scales
    a scale of theirs in float32.
    """
    scales = -(-numbers // 64)
    return -(-numbers // 2) + scales + 4 * -(-scales // 256)


def kv_cache(model: Shape, rows: int, length: int, dtype: torch.dtype) -> int:
    """Bytes of the keys and values of all blocks while text is generated.

    An upper bound where a window slides over the text. Not for DeepSeek's latent
    attention, which is stored in another form.
    """
    width = 2 * model.key_heads * model.head_size
    return model.blocks * rows * length * width * dtype.itemsize


def training(
    student: str | Path | PretrainedConfig,
    step: Step,
    teacher: str | Path | PretrainedConfig | None = None,
    *,
    kind: str | None = "forward_kl",
    optimiser: str = "adamw",
) -> Ledger:
    """The fullest moment of a step of `train.fit`, after the first step.

    - student, teacher: folder, name in `facts`, or configuration; the teacher counts
      only where its signal is live.
    - kind: of divergence; "sparse" for a cache of few tokens. Text alone needs none.
    - optimiser: "adamw", or "paged-8bit" of bitsandbytes.
    """
    model, size, full = shape(student), step.dtype.itemsize, step.full
    reader = shape(teacher) if teacher and step.teacher_signal == "live" else None
    kind = None if step.teacher_signal == "text" else kind
    number = size if full else 4  # adapters are float32
    gradients = number * (model.parameters if full else model.adapter(step.lora_rank))
    matrix = size * model.vocab * model.hidden if full else 0  # the output's gradient
    logits = size * step.positions * model.vocab
    if step.fused_head:
        head, signal = _fused_bytes(model, reader, step), 0
    else:
        head = max(
            EAGER_BYTES[kind] * step.positions * model.vocab, 2 * logits + matrix
        )
        signal = 0 if kind in (None, "sparse") else logits  # lives as long as the step
    block, flow = _block_bytes(model, step)
    kept, again = model.blocks * block, 0
    if step.checkpointing:
        kept, again = model.blocks * step.tokens * model.hidden * size, block
    held = gradients if step.accumulation > 1 else 0  # from the batches before
    # On a GPU AdamW updates all weights at once, with a copy of one moment beside.
    copy = gradients if step.device == "cuda" else 2 * matrix
    moments = {
        "the loss": (held, kept, head),
        "the way back, last block": (max(held, matrix), kept + again + flow, signal),
        "the way back, first block": (gradients, block + flow, signal),
        "the update": (gradients + copy, 0, signal),
    }
    moment = max(moments, key=lambda name: sum(moments[name]))
    parts = {
        "weights": weights(model, step.dtype, step.quantise_student),
        "adapters": 0 if full else gradients,
        "optimiser": int(gradients * OPTIMISER_BYTES[optimiser] / 4),
        "teacher": weights(reader, step.dtype, step.quantise_teacher) if reader else 0,
        **dict(zip(MOVING, moments[moment], strict=True)),
    }
    how = "every weight" if full else f"{'Q' * step.quantise_student}LoRA"
    return Ledger(
        f"training, {how}, {step.batch_size} x {step.max_length} tokens", moment, parts
    )


def generating(
    model: str | Path | PretrainedConfig,
    *,
    rows: int,
    length: int,
    answer: int,
    dtype: torch.dtype,
    quantise: bool = False,
) -> Ledger:
    """The fullest moment while `rows` prompts are answered together: reading them, or
    the last token of answers of `answer` tokens, when rows have `length` tokens."""
    model, size = shape(model), dtype.itemsize
    flow = size * (3 * model.inner + 2 * model.hidden)  # an MLP without autograd
    # A block's keys and values are copied when a token is appended.
    cache = kv_cache(model, rows, length, dtype) * (model.blocks + 1) // model.blocks
    words = (size + 8) * rows * model.vocab  # logits, float32, and their softmax
    moments = {
        "the prompt": (
            kv_cache(model, rows, length - answer, dtype),
            flow * rows * (length - answer),
            words,
        ),
        "the last token": (cache, flow * rows, words),
    }
    moment = max(moments, key=lambda name: sum(moments[name]))
    parts = {"weights": weights(model, dtype, quantise)}
    parts |= dict(zip(ANSWERING, moments[moment], strict=True))
    return Ledger(f"{rows} answers at once, {length} tokens each", moment, parts)


def step_flops(
    student: str | Path | PretrainedConfig,
    step: Step,
    teacher: str | Path | PretrainedConfig | None = None,
) -> int:
    """Multiplications and additions of one step of the optimiser.

    A matrix of p numbers takes 2p for a token, and again for each of its two gradients
    (Kaplan et al. 2020); under LoRA only the one of its input is needed. Attention
    adds 4 T A, checkpointing one more way through. Adapters, norms: not counted.
    """
    model = shape(student)
    live = teacher is not None and step.teacher_signal == "live"
    passes = (3 if step.full else 2) + step.checkpointing
    head = (3 if step.full else 2) * _head_flops(model, step)
    flops = passes * _body_flops(model, step) + head
    if live:
        reader = shape(teacher)
        flops += _body_flops(reader, step) + _head_flops(reader, step)
    return flops * step.accumulation


def _body_flops(model: Shape, step: Step) -> int:
    matrices = sum(a * b for a, b in model.matrices)
    scores = 2 * model.blocks * step.max_length * model.heads * model.head_size
    return 2 * step.tokens * (matrices + scores)


def _head_flops(model: Shape, step: Step) -> int:
    return 2 * step.positions * model.vocab * model.hidden


def _block_bytes(model: Shape, step: Step) -> tuple[int, int]:
    """Bytes that autograd keeps of one block, and that flow through it on the way back.

    Each line is one kind of operation and what its derivative needs.
    """
    size, wide, h = step.dtype.itemsize, 4, model.hidden
    matrices = model.matrices[: len(model.matrices) // model.blocks]
    a, k = (model.head_size * heads for heads in (model.heads, model.key_heads))
    normalised = model.norms * h + model.head_norms * (a + k)
    token = wide * normalised  # a norm keeps its input, in float32
    if step.full:
        token += size * normalised  # a trained scale: what it multiplied
    # Attention: queries, keys, values (repeated for all heads where a batch is padded)
    # and its output; a normaliser a head; a row of the mask.
    token += size * 4 * a + wide * model.heads + size * step.max_length
    token += size * 3 * model.inner  # the gate, its activation, what it multiplies
    if step.full or size == wide:
        token += size * (2 * h + model.inner)  # what enters matrices; some share it
    else:
        token += wide * sum(n for n, _ in matrices)  # each adapter widens its own
    if not step.full:
        token += wide * step.lora_rank * len(matrices)  # between A and B
    flow = size * (2 * model.inner + 2 * h)
    if not step.full and size < wide:
        flow = 2 * wide * max(out for _, out in matrices)  # an adapter's output, twice
    unpacked = size * max(n * out for n, out in matrices) * step.quantise_student
    return step.tokens * token, step.tokens * flow + unpacked


def _fused_bytes(model: Shape, reader: Shape | None, step: Step) -> int:
    """Hidden states, their gradients, and the two tiles of `losses.linear_divergence`
    with the blocks that it works through."""
    size, tile = step.dtype.itemsize, step.positions
    sizes = fused.CPU_BYTES if step.device == "cpu" else fused.GPU_BYTES
    tile = 4 * model.vocab * max(1, min(1024, tile, sizes[0] // (4 * model.vocab)))
    states = (4 + 2 * size) * model.hidden + size * (reader.hidden if reader else 0)
    matrix = (4 + size) * model.vocab * model.hidden if step.full else 0
    return step.positions * states + matrix + 2 * tile + 8 * min(sizes[1], tile)
