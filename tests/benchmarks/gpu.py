"""Full-size pairs on a GPU, with random weights: `python -m tests.benchmarks.gpu`.

Qwen3-1.7B teaches Qwen3-0.6B with LoRA, and Phi-4-mini learns from text with QLoRA.
Both are built from their configurations without a download, with the settings of their
tracks for the card that is there. Random weights need the memory and the time of
trained ones. Measured are the peak of a training step, beside what the ledger says,
real tokens a second, and the arithmetic of a step as a fraction of what one large
matrix product reaches in bfloat16, timed here too. Writes notebooks/results/gpu.json.

`--dry-run` runs the same code with two thin layers, on any machine, and writes nothing.
"""

import argparse
import dataclasses
import time

import bitsandbytes as bnb
import pandas
import torch
from torch.nn import Linear, Module
from transformers import AutoConfig, AutoModelForCausalLM, PretrainedConfig

from helpers import data, models, profile, tracks
from helpers.memory import GIB, Step, ledger
from helpers.profile.costs import GPU_RECORD
from helpers.tracks import Track
from helpers.train import fit

RUNS = {"gpu": False, "api-phi-4-mini": True}  # track -> is its student in 4 bits?
STEPS = 3
THIN = {
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 16,
    "vocab_size": 512,
    "pad_token_id": 0,
    "bos_token_id": 0,
    "eos_token_id": 0,
}
COLUMNS = ["track", "student", "method", "batch_size", "max_length", "accumulation"]
COLUMNS += ["checkpointing", "tokens a second", "peak GiB", "ledger GiB"]
COLUMNS += ["TFLOP/s", "fraction of matmul"]


def config(name: str, thin: bool) -> PretrainedConfig:
    full = ledger.config_of(name)
    return AutoConfig.for_model(full.model_type, **THIN) if thin else full


def random_model(config: PretrainedConfig, track: Track, quantise: bool) -> Module:
    """A frozen model with random weights on the track's device, in NF4 if wanted."""
    device = "cpu" if quantise else track.device  # packed when it is moved
    with torch.device(device):
        model = AutoModelForCausalLM.from_config(config, dtype=track.dtype)
    model.requires_grad_(False)
    if quantise:
        head = model.get_output_embeddings()
        for name, layer in list(model.named_modules()):
            if isinstance(layer, Linear) and layer is not head:
                parent, _, last = name.rpartition(".")
                setattr(model.get_submodule(parent), last, in_4_bits(layer, track))
        model.is_loaded_in_4bit = True  # tells peft what it adapts
    return model.to(track.device).eval()


def in_4_bits(layer: Linear, track: Track) -> Module:
    settings = {"compute_dtype": track.dtype, "quant_type": "nf4"}
    packed = bnb.nn.Linear4bit(
        layer.in_features, layer.out_features, layer.bias is not None, **settings
    )
    packed.weight = bnb.nn.Params4bit(
        layer.weight.data, requires_grad=False, quant_type="nf4"
    )
    packed.bias = layer.bias
    return packed


def held_bytes(model: Module) -> int:
    """Bytes of a model's parameters, scales of 4-bit ones included."""
    states = [p.quant_state for p in model.parameters() if hasattr(p, "quant_state")]
    scales = sum(s.absmax.nbytes + s.state2.absmax.nbytes for s in states)
    return scales + profile.weight_bytes(model)


def random_rows(step: Step, vocab: int) -> list[dict]:
    """Rows for one step; the last is shorter, so that a batch is padded as usual."""
    rows = []
    for i in range(step.batch_size * step.accumulation):
        length = step.max_length - 8 * (i % 2)
        ids = torch.randint(vocab, (length,)).tolist()
        prompt = length - step.max_new_tokens
        rows.append({"input_ids": ids, "labels": [-100] * prompt + ids[prompt:]})
    return rows


def matmul_flops(device: str, size: int, seconds: float = 1.0) -> float:
    """FLOP a second of a square product in the type that training computes in."""
    dtype = torch.float32 if device == "cpu" else torch.bfloat16
    a, b = (torch.randn(size, size, device=device, dtype=dtype) for _ in range(2))
    best, end = 0.0, time.perf_counter() + seconds
    while best == 0 or time.perf_counter() < end:
        start = time.perf_counter()
        (a @ b).flatten()[0].item()  # waits for a GPU
        best = max(best, 2 * size**3 / (time.perf_counter() - start))
    return best


def measure(name: str, track: Track, thin: bool, matmul: float) -> list:
    """One row of the record."""
    quantise = RUNS[name]
    track = dataclasses.replace(track, quantise_student=quantise)
    if thin:
        small = {"batch_size": 2, "max_length": 64, "max_new_tokens": 16}
        track = dataclasses.replace(track, **small)
    step, shape = Step.of(track), config(track.student, thin)
    reader = None if track.teacher_url else config(track.teacher, thin)
    student = models.add_lora(random_model(shape, track, quantise), track.lora_rank)
    teacher = random_model(reader, track, False) if reader else None
    if track.checkpointing:
        models.checkpoint(student)
    settings = {"batch_size": track.batch_size, "accumulation": track.accumulation}
    settings |= {"learning_rate": track.learning_rate, "progress": False}
    settings |= {"soft_weight": 1.0 if teacher else 0.0, "teacher": teacher}
    rows = random_rows(step, shape.vocab_size)
    held = sum(held_bytes(model) for model in (student, teacher) if model)
    peak = held + profile.peak_memory(lambda: fit(student, rows, steps=2, **settings))
    seconds = fit(student, rows, steps=STEPS, **settings).seconds / STEPS
    expected = ledger.training(shape, step, reader).total
    flops = ledger.step_flops(shape, step, reader) / seconds
    tokens = sum(len(row["input_ids"]) for row in rows) / seconds
    return [
        name,
        track.student.split("/")[-1],
        "QLoRA" if quantise else "LoRA",
        track.batch_size,
        track.max_length,
        track.accumulation,
        track.checkpointing,
        round(tokens),
        round(peak / GIB, 4 if thin else 2),
        round(expected / GIB, 4 if thin else 2),
        round(flops / 1e12, 4 if thin else 1),
        round(flops / matmul, 3),
    ]


def main(arguments: list[str] | None = None) -> list[list]:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--dry-run", action="store_true", help="two thin layers")
    parser.add_argument("--card", help="8, 16, 24 or 80; by default what is there")
    options = parser.parse_args(arguments)
    if not (options.dry_run or torch.cuda.is_available()):
        parser.error("this record needs a CUDA GPU; --dry-run tries the code without")
    torch.manual_seed(0)
    start, thin = time.perf_counter(), options.dry_run
    device = "cuda" if torch.cuda.is_available() else "cpu"
    matmul = matmul_flops(device, 256 if thin else 8192, 0.1 if thin else 2.0)
    rows = []
    for name in RUNS:
        track = tracks.load(f"{name}-{options.card}" if options.card else name)
        rows.append(measure(name, track, thin, matmul))
    print(pandas.DataFrame(rows, columns=COLUMNS).T.to_string(header=False))
    if not thin:
        card = data.run_card(
            "python -m tests.benchmarks.gpu",
            device=torch.cuda.get_device_name(),
            memory_gib=round(tracks.gpu_gib(), 1),
            matmul_tflops=round(matmul / 1e12),
            weights="random",
            seeds=[0],
            minutes=round((time.perf_counter() - start) / 60, 1),
        )
        data.write_results(GPU_RECORD, COLUMNS, rows, card)
    return rows


if __name__ == "__main__":
    main()
