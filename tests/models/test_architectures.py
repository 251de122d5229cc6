"""generate -> cache -> LoRA distil -> merge -> evaluate, for all that learners bring:
small models of many architectures, with random weights and the course's tokenizer.

They differ in what breaks pipelines: attention with fewer key heads, biases, absolute
positions, sliding windows, matrices stored as (in, out), fused projections, tied or
untied output layers, one with a bias, soft-capped logits, more rows than ids.
"""

import copy
from typing import NamedTuple

import pytest
import torch
from transformers import AutoModelForCausalLM as Auto
from transformers import (
    Gemma2Config,
    Gemma3TextConfig,
    GPT2Config,
    LlamaConfig,
    Phi3Config,
    PhiConfig,
    PretrainedConfig,
    Qwen2Config,
    Qwen3Config,
)

from helpers import data, distill, evaluate, generate, models, world
from helpers.losses import KINDS, fused, shift_and_mask, token_divergence
from helpers.models import ChatModel
from helpers.train import cache, fit, kept_logits

HEADS = {"num_attention_heads": 4, "num_key_value_heads": 2}
SHAPE = {"hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 2, **HEADS}
IDS = {"bos_token_id": 1, "eos_token_id": 1, "pad_token_id": 0}
WINDOW = {"head_dim": 16, "sliding_window": 16}  # shorter than the prompts
SMOL = {**SHAPE, "hidden_size": 72, "num_attention_heads": 9, "num_key_value_heads": 3}
GPT2 = {"n_embd": 64, "n_layer": 2, "n_head": 4, "n_positions": 512}
KIND = {
    "Llama": lambda **k: LlamaConfig(**SHAPE, **k),
    "Qwen2": lambda **k: Qwen2Config(**SHAPE, tie_word_embeddings=True, **k),
    "Qwen3": lambda **k: Qwen3Config(**SHAPE, head_dim=32, **k),
    "Phi-3": lambda **k: Phi3Config(**SHAPE, **k),
    "Phi, a bias in the output": lambda **k: PhiConfig(**SHAPE, **k),
    "Gemma-2, soft cap": lambda **k: Gemma2Config(
        **SHAPE, **WINDOW, final_logit_softcapping=3.0, **k
    ),
    "Gemma-3, text": lambda **k: Gemma3TextConfig(**SHAPE, **WINDOW, **k),
    "GPT-2, no padding": lambda **k: GPT2Config(**GPT2, **k | {"pad_token_id": None}),
    "SmolLM2": lambda **k: LlamaConfig(
        **SMOL, tie_word_embeddings=True, rope_theta=100_000, **k
    ),
}


class Pair(NamedTuple):
    student: ChatModel
    teacher: ChatModel
    vocab: int


def make(config: PretrainedConfig, seed: int) -> torch.nn.Module:
    """Layers that do much, and answers far from uniform: there is much to learn."""
    torch.manual_seed(seed)
    model = Auto.from_config(config).eval()
    head = model.get_output_embeddings()
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if weight.dim() == 2:
                weight.mul_(8)
            elif "post_" in name:  # Gemma's norms behind a layer keep it small
                weight.add_(4)
        if head.bias is not None:
            head.bias.normal_()
    return model


def pair(kind: str, tokenizer, student_rows: int = 0, teacher_rows: int = 0) -> Pair:
    rows = [len(tokenizer) + more for more in (student_rows, teacher_rows)]
    student, teacher = (
        ChatModel(make(KIND[kind](vocab_size=n, **IDS), seed), tokenizer)
        for seed, n in enumerate(rows)
    )
    return Pair(student, teacher, models.check_pair(student, teacher))


def the_whole_way(student, teacher, vocab, track, folder, signal) -> None:
    examples = world.examples("train", 12)
    prompts = [{"id": e.id, "messages": list(e.messages)} for e in examples]
    answers = folder / "answers.jsonl"
    sampling = {"max_new_tokens": 6, "sampling_temperature": 1.0, "progress": False}
    said = generate.generate_answers(teacher, prompts, answers, **sampling)
    assert [row["id"] for row in said] == [e.id for e in examples]

    rows = data.encode_chat(said, student.tokenizer)
    settings = {"kind": signal, "vocab": vocab, "progress": False}
    cache.write_cache(teacher, rows, folder / "signal", **settings)
    stored = cache.open_cache(folder / "signal", tokenizer=student.tokenizer)
    assert cache.verify_cache(folder / "signal", teacher, rows, n=4) == {}

    before = evaluate.agreement(student.model, teacher.model, rows, vocab=vocab)
    how = {"steps": 8, "learning_rate": 1e-2, "progress": False, "vocab": vocab}
    taught, history, trained = distill.distil(
        student, rows=said, track=track, teacher=stored, rank=8, **how
    )
    assert 0 < trained < student.model.num_parameters()
    assert history.loss[-1] < history.loss[0]
    assert type(taught.model) is type(student.model), "merged"
    after = evaluate.agreement(taught.model, teacher.model, rows, vocab=vocab)
    assert after["forward_kl"] < before["forward_kl"]

    named = {"teacher": teacher, "student": taught}
    scored = evaluate.compare(named, examples[:3], max_new_tokens=4)
    assert len(scored) == 6 and scored["answer"].map(type).eq(str).all()

    taught.model.save_pretrained(folder / "student")
    taught.tokenizer.save_pretrained(folder / "student")
    again = models.load(folder / "student", device="cpu").model
    ids = torch.tensor([rows[0]["input_ids"]])
    assert torch.equal(again(ids).logits, taught.model(ids).logits)


@pytest.mark.parametrize("kind", KIND)
def test_the_whole_way_passes(kind, tokenizer, track, tmp_path):
    the_whole_way(*pair(kind, tokenizer), track, tmp_path, "hidden")


@pytest.mark.parametrize("signal", ["topk", "hidden"])
def test_the_whole_way_passes_over_uneven_rows(signal, tokenizer, track, tmp_path):
    """As from Qwen2.5-7B to 0.5B: one tokenizer, but 128 rows more in the teacher."""
    student, teacher, vocab = pair("Qwen2", tokenizer, 8, 136)
    assert vocab == student.model.config.vocab_size == len(tokenizer) + 8
    the_whole_way(student, teacher, vocab, track, tmp_path, signal)


@pytest.mark.parametrize("kind", KIND)
def test_greedy_answers_are_those_of_whole_forward_passes(kind, tokenizer):
    """In a batch of unequal prompts, padded and with a cache, nothing may shift."""
    model = pair(kind, tokenizer).student.model
    prompts = [e.messages for e in world.examples("train", 4)]
    expected = []
    for prompt in prompts:
        text = data.render_prompt(tokenizer, prompt)
        ids = tokenizer(text, add_special_tokens=False, return_tensors="pt")[
            "input_ids"
        ]
        start = ids.shape[1]
        while ids.shape[1] < start + 5 and ids[0, -1] != tokenizer.eos_token_id:
            with torch.no_grad():
                likeliest = model(ids).logits[:, -1].argmax(-1, keepdim=True)
            ids = torch.cat([ids, likeliest], -1)
        answer = tokenizer.decode(ids[0, start:], skip_special_tokens=True)
        expected.append(answer.strip())
    assert len(set(expected)) > 1
    assert generate.answer(model, tokenizer, prompts, max_new_tokens=5) == expected


def test_the_kinds_have_what_they_are_here_for(tokenizer):
    made = {kind: pair(kind, tokenizer).student.model for kind in KIND}
    tied = {kind for kind, m in made.items() if m.config.tie_word_embeddings}
    assert (
        {"Qwen2", "SmolLM2", "GPT-2, no padding", "Gemma-3, text"} <= tied < set(KIND)
    )
    assert made["Phi, a bias in the output"].get_output_embeddings().bias is not None
    assert made["Gemma-2, soft cap"].config.final_logit_softcapping == 3.0
    assert "sliding_attention" in made["Gemma-3, text"].config.layer_types
    assert made["GPT-2, no padding"].config.pad_token_id is None


@pytest.mark.parametrize("kind", KIND)
def test_a_merged_adapter_gives_the_same_logits(kind, tokenizer):
    base = pair(kind, tokenizer).student
    rows = data.encode_chat([e.row() for e in world.examples("train", 8)], tokenizer)
    lora = models.add_lora(base.model, rank=4)
    fit(lora, rows, steps=3, batch_size=4, learning_rate=1e-2, progress=False)
    merged = models.merge(lora, rows=rows)
    ids = torch.tensor([rows[0]["input_ids"]])
    expected = lora(ids).logits
    torch.testing.assert_close(merged(ids).logits, expected, atol=1e-4, rtol=0)
    assert not torch.allclose(base.model(ids).logits, expected, atol=1e-2)


@pytest.mark.parametrize("kind", KIND)
def test_qlora_trains(kind, tokenizer, tmp_path):
    base = pair(kind, tokenizer).student
    base.model.save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    coarse = models.load(tmp_path, device="cpu", quantise="nf4")
    assert models.in_4_bits(coarse.model) or kind == "SmolLM2", "its rows are uneven"
    rows = data.encode_chat([e.row() for e in world.examples("train", 4)], tokenizer)
    lora = models.add_lora(coarse.model, rank=4)
    how = {"batch_size": 4, "learning_rate": 1e-2, "progress": False}
    history = fit(lora, rows, steps=4, **how)
    assert history.loss[-1] < history.loss[0]


# ---------------------------------------------------------------- fused = eager


def layer(model) -> dict:
    """The output layer as `fused` takes it."""
    head = model.get_output_embeddings()
    softcap = getattr(model.config, "final_logit_softcapping", None)
    return {"weight": head.weight, "bias": head.bias, "softcap": softcap}


def entering(model, batch) -> torch.Tensor:
    """What enters the output layer at the positions whose label is kept, (N, H)."""
    seen = []
    head = model.get_output_embeddings()
    with head.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0])):
        kept_logits(model, batch)
    return seen[0].reshape(-1, head.weight.shape[1])


@pytest.mark.parametrize("kind", KIND)
def test_fused_equals_eager(kind, tokenizer):
    """Loss and all gradients, also where the output layer is the embedding."""
    student, teacher, vocab = pair(kind, tokenizer, 8, 72)
    rows = data.encode_chat([e.row() for e in world.examples("train", 3)], tokenizer)
    batch = data.collate(rows, 0)
    kept = shift_and_mask(batch["labels"])[1].sum()
    with torch.no_grad():
        teacher_hidden = entering(teacher.model, batch)
        teacher_logits = kept_logits(teacher.model, batch, vocab)
    theirs = layer(teacher.model)
    for divergence in ("forward_kl", "jsd"):
        assert divergence in KINDS
        results = []
        for fuse in (False, True):
            model = copy.deepcopy(student.model)
            if fuse:
                ours = layer(model)
                values = fused.linear_divergence(
                    entering(model, batch),
                    ours["weight"][:vocab],
                    teacher_hidden,
                    theirs["weight"][:vocab],
                    kind=divergence,
                    temperature=2.0,
                    student_bias=None if ours["bias"] is None else ours["bias"][:vocab],
                    teacher_bias=theirs["bias"][:vocab] if ours["bias"] is not None
                    else None,
                    student_softcap=ours["softcap"],
                    teacher_softcap=theirs["softcap"],
                )  # fmt: skip
            else:
                logits = kept_logits(model, batch, vocab)
                settings = {"kind": divergence, "temperature": 2.0}
                values = token_divergence(logits, teacher_logits, **settings)
            assert len(values) == kept
            values.mean().backward()
            gradients = {n: p.grad for n, p in model.named_parameters()}
            results.append((values.detach(), gradients))
        (eager, eager_gradients), (fast, fast_gradients) = results
        torch.testing.assert_close(fast, eager, atol=1e-5, rtol=1e-5)
        for name, gradient in eager_gradients.items():
            torch.testing.assert_close(
                fast_gradients[name], gradient, atol=1e-5, rtol=1e-4, msg=name
            )
