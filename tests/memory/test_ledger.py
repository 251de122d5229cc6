"""The memory ledger against models that are built, packed and trained."""

import copy
import dataclasses

import pytest
import torch
import torch.nn.functional as F
from peft import LoraConfig, get_peft_model
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.nn import Parameter
from torch.utils.flop_counter import FlopCounterMode
from transformers import AutoConfig, AutoModelForCausalLM, DynamicCache, GPT2Config

from helpers import data, losses, models, profile, train, world
from helpers.losses import fused
from helpers.memory import Step, ledger
from tests.benchmarks import gpu

SMALL = {
    "hidden_size": 128,
    "intermediate_size": 384,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "vocab_size": 512,
    "pad_token_id": 0,
    "bos_token_id": 0,
    "eos_token_id": 0,
}
FAMILIES = ("llama", "qwen2", "qwen3", "phi3", "gemma3_text")
# Published totals, in billions; the shapes they are counted from ship with the course.
PUBLISHED = {
    "Qwen/Qwen3-0.6B": 0.60,
    "Qwen/Qwen3-1.7B": 1.72,
    "Qwen/Qwen3-4B": 4.02,
    "Qwen/Qwen3-8B": 8.19,
    "Qwen/Qwen2.5-0.5B-Instruct": 0.49,
    "Qwen/Qwen2.5-1.5B-Instruct": 1.54,
    "Qwen/Qwen2.5-3B-Instruct": 3.09,
    "Qwen/Qwen2.5-7B-Instruct": 7.62,
    "meta-llama/Llama-3.2-1B-Instruct": 1.24,
    "meta-llama/Llama-3.2-3B-Instruct": 3.21,
    "meta-llama/Llama-3.1-8B-Instruct": 8.03,
    "meta-llama/Llama-3.1-405B-Instruct": 405.85,
    "HuggingFaceTB/SmolLM2-135M-Instruct": 0.13,
    "HuggingFaceTB/SmolLM2-360M-Instruct": 0.36,
    "HuggingFaceTB/SmolLM2-1.7B-Instruct": 1.71,
    "microsoft/Phi-3-mini-4k-instruct": 3.82,
    "microsoft/Phi-4-mini-instruct": 3.84,
    "microsoft/phi-4": 14.66,
    "google/gemma-3-1b-it": 1.00,
    "deepseek-ai/DeepSeek-V3": 671.03,
}


def small(family):
    if family == "gpt2":
        return GPT2Config(n_embd=128, n_layer=3, n_head=4, vocab_size=512)
    return AutoConfig.for_model(family, **SMALL)


def build(config, dtype=torch.float32):
    torch.manual_seed(0)
    return AutoModelForCausalLM.from_config(config, dtype=dtype)


# ---------------------------------------------------------------- weights


@pytest.mark.parametrize("name", ledger.facts())
def test_every_shipped_shape_counts_to_its_published_total(name):
    assert round(ledger.shape(name).parameters / 1e9, 2) == PUBLISHED[name]


def test_every_shipped_model_names_its_vocabulary_and_licence():
    assert set(ledger.facts()) == set(PUBLISHED)
    for facts in ledger.facts().values():
        assert facts["vocabulary"] and facts["licence"] and facts["vocab_size"]


@pytest.mark.parametrize("family", [*FAMILIES, "gpt2"])
def test_the_count_of_a_configuration_is_that_of_its_model(family):
    model = build(small(family))
    shape = ledger.shape(small(family))
    assert shape.parameters == profile.parameters(model)
    lora = models.add_lora(model, 4)
    assert shape.adapter(4) == profile.parameters(lora, trainable=True)
    assert ledger.weights(shape, torch.float32) == profile.weight_bytes(model)


def test_a_folder_needs_no_name_and_an_unknown_name_is_refused(track, student):
    shape = ledger.shape(track.student)
    assert shape.parameters == profile.parameters(student.model) and shape.tied
    with pytest.raises(ValueError, match="no configuration of who/knows.*Qwen3-0.6B"):
        ledger.shape("who/knows")


def test_nf4_is_counted_to_the_byte():
    import bitsandbytes.functional as bnb

    for numbers in (64 * 64, 192 * 64, 320 * 1088):
        weight = torch.randn(numbers // 64, 64)
        packed, state = bnb.quantize_4bit(
            weight, quant_type="nf4", compress_statistics=True
        )
        tensors = packed, state.absmax, state.state2.absmax
        assert ledger.nf4_bytes(numbers) == sum(t.nbytes for t in tensors)
    assert round(8 * ledger.nf4_bytes(2**24) / 2**24, 3) == 4.127


def test_a_student_in_4_bits_weighs_what_the_ledger_says(track):
    packed = models.load(track.student, device="cpu", quantise="nf4").model
    expected = ledger.weights(ledger.shape(track.student), torch.float32, True)
    assert expected == gpu.held_bytes(packed)


def test_the_cache_of_keys_and_values_is_counted_to_the_byte():
    config = small("qwen3")
    cache = DynamicCache(config=config)
    with torch.no_grad():
        build(config)(torch.zeros(3, 20, dtype=torch.long), past_key_values=cache)
    stored = sum(layer.keys.nbytes + layer.values.nbytes for layer in cache.layers)
    assert stored == ledger.kv_cache(ledger.shape(config), 3, 20, torch.float32)


# ---------------------------------------------------------------- training


@pytest.mark.parametrize("kind", ledger.EAGER_BYTES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_bytes_of_the_eager_head_are_those_counted(kind, dtype):
    N, V = 32, 2048
    labels = torch.randint(V, (1, N + 1))
    hidden = torch.randn(N, 8, dtype=dtype, requires_grad=True)
    matrix = torch.randn(8, V, dtype=dtype)
    known = torch.arange(4).expand(N, 4), torch.full((N, 4), -2.0)

    def step():
        targets = None if kind is None else hidden.detach() @ matrix
        if kind == "sparse":
            targets = losses.SparseTargets(*known, "bucket", 2.0)
        name = "forward_kl" if kind in (None, "sparse") else kind
        losses.loss_parts(hidden @ matrix, labels, targets, kind=name).loss.backward()

    peak = profile.peak_memory(step) / (N * V)
    assert peak == pytest.approx(ledger.EAGER_BYTES[kind], rel=0.01)


def fused_steps(student, teacher, batch, steps=2):
    """Training with the fused head, as `train.fit` does with the eager one."""
    trained = [p for p in student.parameters() if p.requires_grad]
    optimiser = torch.optim.AdamW(trained, 1e-3)
    _, mask = losses.shift_and_mask(batch["labels"])
    keep = F.pad(mask, (0, 1))
    inputs = {key: value for key, value in batch.items() if key != "labels"}
    base = student.get_base_model() if hasattr(student, "peft_config") else student
    student.train()
    for _ in range(steps):
        with torch.no_grad():
            said = teacher.base_model(**inputs, use_cache=False)[0][keep]
        thought = base.base_model(**inputs, use_cache=False)[0][keep]
        heads = [m.get_output_embeddings().weight for m in (base, teacher)]
        fused.linear_divergence(thought, heads[0], said, heads[1]).mean().backward()
        optimiser.step()
        optimiser.zero_grad()
    student.eval()


def moving(found):
    """What a training step adds to the weights that were there before."""
    there = ("weights", "adapters", "teacher")
    return found.total - sum(found.parts[name] for name in there)


@pytest.fixture(scope="module")
def rows(tokenizer):
    """Rows of nearly one length, so that every batch is as large."""
    examples = [e.row() for e in world.examples("train", 400, seed=3)]
    encoded = list(data.encode_chat(examples, tokenizer))
    return sorted(encoded, key=lambda row: len(row["input_ids"]))[-12:]


@pytest.mark.slow
@pytest.mark.parametrize("head", ["eager", "fused"])
@pytest.mark.parametrize("batch_size", [3, 12])
@pytest.mark.parametrize("method", ["full", "LoRA", "QLoRA", "LoRA, checkpointing"])
def test_the_ledger_is_within_15_percent_on_the_tiny_track(
    track, student, teacher, rows, method, batch_size, head
):
    base = student.model
    if method == "QLoRA":
        base = models.load(track.student, device="cpu", quantise="nf4").model
    if method == "full":  # of a copy: other tests share the student
        model = copy.deepcopy(base).requires_grad_(True)
    else:
        model = models.add_lora(base, 16)
    if "checkpointing" in method:
        models.checkpoint(model)
    chosen = rows[-batch_size:]
    batch = data.collate(chosen, 0)

    def action():
        if head == "fused":
            return fused_steps(model, teacher.model, batch)
        settings = {"soft_weight": 1.0, "temperature": 1.0, "progress": False}
        settings |= {"steps": 2, "batch_size": batch_size, "learning_rate": 1e-3}
        return train.fit(model, chosen, teacher=teacher.model, **settings)

    peak = profile.peak_memory(action)
    kept = losses.shift_and_mask(batch["labels"])[1].sum().item()
    step = Step(
        batch_size,
        batch["input_ids"].shape[1],
        kept / batch_size,
        torch.float32,
        "cpu",
        lora_rank=0 if method == "full" else 16,
        checkpointing="checkpointing" in method,
        quantise_student=method == "QLoRA",
        fused_head=head == "fused",
    )
    predicted = moving(ledger.training(track.student, step, track.teacher))
    assert predicted == pytest.approx(peak, rel=0.15)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("full", [False, True])
def test_the_ledger_holds_for_other_families_in_half_precision(family, full):
    config = small(family)
    model = build(config, torch.bfloat16)
    if not full:
        model = models.add_lora(model, 8)
    step = Step(4, 96, 12, torch.bfloat16, "cpu", lora_rank=0 if full else 8)
    chosen = gpu.random_rows(step, config.vocab_size)
    settings = {"steps": 2, "batch_size": 4, "learning_rate": 1e-3, "progress": False}
    peak = profile.peak_memory(lambda: train.fit(model, chosen, **settings))
    step = dataclasses.replace(step, teacher_signal="text")
    assert moving(ledger.training(config, step)) == pytest.approx(peak, rel=0.15)


def without_numbers(config, rank=0):
    """A model of any size, of fake tensors: they have shapes and bytes to be counted,
    and take no memory. To be called, and used, in a `FakeTensorMode`."""
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16)
        if rank:
            lora = LoraConfig(
                r=rank, target_modules="all-linear", task_type="CAUSAL_LM"
            )
            model = get_peft_model(model, lora)
    made = {}
    for module in model.modules():
        for name, p in module._parameters.items():
            if p is not None and p not in made:
                fake = torch.empty(p.shape, dtype=p.dtype)
                made[p] = Parameter(fake, requires_grad=p.requires_grad)
            module._parameters[name] = made.get(p)
        for name, buffer in module._buffers.items():
            module._buffers[name] = torch.empty(buffer.shape, dtype=buffer.dtype)
    return model


def total_loss(logits, targets):
    """`losses.loss_parts` at its defaults, without masks, which need numbers."""
    wide = logits.float()  # beside the narrow ones, as there
    label = torch.zeros(len(wide), dtype=torch.long)
    hard = F.cross_entropy(wide, label, reduction="none").mean()
    if targets is None:
        return hard
    kl = losses.token_divergence(wide, targets, temperature=2.0).mean()
    return 0.5 * hard + 0.5 * 4 * kl


@pytest.mark.slow
@pytest.mark.parametrize("checkpointing", [True, False])
@pytest.mark.parametrize(
    ("student", "teacher", "rank", "labels"),
    [
        ("Qwen/Qwen3-0.6B", "Qwen/Qwen3-1.7B", 16, 256),
        ("Qwen/Qwen3-0.6B", "Qwen/Qwen3-1.7B", 0, 256),
        ("Qwen/Qwen3-8B", None, 0, 2),  # an output matrix of its own, few labels
        ("microsoft/Phi-4-mini-instruct", None, 16, 256),
        (
            "meta-llama/Llama-3.2-1B-Instruct",
            "meta-llama/Llama-3.1-8B-Instruct",
            16,
            256,
        ),
    ],
)
def test_real_widths_and_vocabularies_are_within_5_percent(
    student, teacher, rank, labels, checkpointing
):
    configs = [ledger.config_of(name) for name in (student, teacher) if name]
    for config in configs:  # depth only repeats: three blocks are enough, and fast
        config.num_hidden_layers = 3
        if getattr(config, "layer_types", None):
            config.layer_types = config.layer_types[:3]
    signal = "live" if teacher else "text"
    settings = {"lora_rank": rank, "checkpointing": checkpointing}
    step = Step(
        4, 768, labels, torch.bfloat16, "cpu", teacher_signal=signal, **settings
    )

    def action():
        for _ in range(2):
            targets = None
            if teacher:
                with torch.no_grad():
                    targets = reader(**inputs).logits.flatten(0, 1)
            total_loss(model(**inputs).logits.flatten(0, 1), targets).backward()
            optimiser.step()
            optimiser.zero_grad()

    with FakeTensorMode(allow_non_fake_inputs=True):
        model = without_numbers(configs[0], rank).train()
        reader = without_numbers(configs[-1]) if teacher else None
        if checkpointing:
            models.checkpoint(model)
        trained = [p for p in model.parameters() if p.requires_grad]
        optimiser = torch.optim.AdamW(trained, foreach=False)
        ids = torch.zeros(4, 768, dtype=torch.long)
        inputs = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
        inputs |= {"use_cache": False, "logits_to_keep": labels}
        peak = profile.peak_memory(action)
    predicted = moving(ledger.training(configs[0], step, configs[-1]))
    assert predicted == pytest.approx(peak, rel=0.05)


def test_bug_20_logits_fill_the_memory_unless_the_head_is_fused():
    config = small("llama")
    found = {}
    for head in (False, True):
        step = Step(8, 768, 256, torch.bfloat16, "cuda", fused_head=head)
        wide = AutoConfig.for_model("llama", **SMALL | {"vocab_size": 150_000})
        heads = [ledger.training(c, step, c).parts["loss head"] for c in (config, wide)]
        found[head] = heads
    assert found[False][1] > 50 * found[False][0]
    assert found[False][1] > 5 * found[True][1]


def test_parts_follow_what_is_trained_and_how():
    step = Step(8, 768, 256, torch.bfloat16, "cuda")
    pair = "Qwen/Qwen3-0.6B", step, "Qwen/Qwen3-1.7B"
    lora = ledger.training(*pair).parts
    shape = ledger.shape(pair[0])
    assert lora["adapters"] == 4 * shape.adapter(16)
    assert lora["optimiser"] == 8 * shape.adapter(16)
    assert ledger.training(*pair, optimiser="paged-8bit").parts["optimiser"] < (
        0.26 * lora["optimiser"]
    )
    assert lora["teacher"] == 2 * ledger.shape(pair[2]).parameters

    def change(**settings):
        changed = dataclasses.replace(step, **settings)
        return ledger.training(pair[0], changed, pair[2]).parts

    assert change(lora_rank=0)["adapters"] == 0
    assert change(lora_rank=0)["optimiser"] == 4 * shape.parameters  # bf16 moments
    assert change(teacher_signal="cached")["teacher"] == 0
    assert change(quantise_teacher=True)["teacher"] < 0.5 * lora["teacher"]
    assert change(quantise_student=True)["weights"] < lora["weights"]
    assert change(checkpointing=True)["activations"] < 0.3 * lora["activations"]
    assert change(batch_size=4)["activations"] == pytest.approx(
        lora["activations"] / 2, rel=0.01
    )
    assert change(accumulation=8)["gradients"] == lora["adapters"]


def test_a_ledger_is_printed_as_a_table_that_sums_up():
    step = Step(1, 768, 256, torch.bfloat16, "cuda", checkpointing=True)
    found = ledger.training("Qwen/Qwen3-0.6B", step, "Qwen/Qwen3-1.7B")
    text = str(found)
    assert "LoRA, 1 x 768 tokens, fullest at" in text
    assert f"total       {found.total / 2**30:8.2f} GiB" in text
    assert found.total == sum(found.parts.values())


@pytest.mark.parametrize("full", [False, True])
def test_arithmetic_of_a_step_is_that_which_torch_counts(full):
    config = small("llama")
    model = build(config).requires_grad_(full)
    model.config._attn_implementation = "eager"  # the counter knows no fused attention
    ids = torch.zeros(4, 64, dtype=torch.long)
    if not full:  # gradients of the inputs alone, as below an adapter
        model.get_input_embeddings().weight.requires_grad_(True)
    with FlopCounterMode(display=False) as counter:
        model(ids, logits_to_keep=16, use_cache=False).logits.sum().backward()
    step = Step(4, 64, 16, torch.float32, "cpu", lora_rank=0 if full else 8)
    expected = ledger.step_flops(config, step)
    assert expected == pytest.approx(counter.get_total_flops(), rel=0.05)
    double = dataclasses.replace(step, accumulation=2)
    assert ledger.step_flops(config, double) == 2 * expected
