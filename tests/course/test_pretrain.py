"""The shipped weights are what their run cards say, and the recipe runs."""

import json

import pytest
import torch
from safetensors import safe_open
from transformers import AutoTokenizer

from helpers import profile
from helpers.course import curriculum, pretrain
from helpers.data import IGNORE_INDEX
from helpers.world import OTHER_SHOPS, OUR_SHOP

CARDS = {
    name: json.loads((pretrain.WEIGHTS / name / pretrain.RUN_CARD).read_text())
    for name in ("teacher", "student")
}


@pytest.mark.parametrize("name", CARDS)
def test_checksums(name):
    assert pretrain.checksums(pretrain.WEIGHTS / name) == CARDS[name]["sha256"]


def test_a_flipped_byte_is_noticed(tmp_path):
    (tmp_path / "model.safetensors").write_bytes(b"abc")
    before = pretrain.checksums(tmp_path)
    (tmp_path / "model.safetensors").write_bytes(b"abd")
    assert pretrain.checksums(tmp_path) != before


def test_weights_are_safetensors_and_small():
    files = [
        p
        for p in pretrain.WEIGHTS.rglob("*")
        if p.is_file() and ".partial" not in p.parts
    ]
    assert sum(p.stat().st_size for p in files) < 25_000_000
    assert not [
        p for p in files if p.suffix in {".bin", ".pt", ".pth", ".pkl", ".ckpt"}
    ]
    for name in CARDS:
        with safe_open(pretrain.WEIGHTS / name / "model.safetensors", "pt") as tensors:
            assert tensors.keys()


def test_the_student_is_at_most_a_twentieth_of_the_teacher(teacher, student):
    sizes = profile.parameters(student.model), profile.parameters(teacher.model)
    assert sizes == (CARDS["student"]["parameters"], CARDS["teacher"]["parameters"])
    assert sizes[0] <= 0.05 * sizes[1]


def test_run_cards_meet_the_promise():
    test = CARDS["teacher"]["accuracy"]["test"]
    assert 0.93 <= test["all"] < 1.0
    assert min(test.values()) >= 0.85
    assert CARDS["student"]["accuracy"]["test"]["all"] <= test["all"] - 0.30


@pytest.mark.slow
@pytest.mark.parametrize("name", CARDS)
def test_accuracy_measured_again_on_a_sample(name, request):
    model, tokenizer = request.getfixturevalue(name)
    measured = pretrain.accuracy(model, tokenizer, "test", 200)["all"]
    assert abs(measured - CARDS[name]["accuracy"]["test"]["all"]) < 0.08


# ---------------------------------------------------------------- the recipe


def test_growing_a_model_keeps_its_function(tokenizer):
    torch.manual_seed(0)
    shape = {**pretrain.SHAPES["teacher"], "num_hidden_layers": 2, "hidden_size": 64}
    small = pretrain.new_model(tokenizer, shape).eval()
    big = pretrain.grow(small, tokenizer).eval()
    ids = torch.arange(40)[None]
    assert big.config.num_hidden_layers == 4
    assert torch.allclose(big(ids).logits, small(ids).logits, atol=1e-5)


def test_the_recipe_learns(tokenizer):
    torch.manual_seed(0)
    model = pretrain.new_model(tokenizer, pretrain.SHAPES["student"])
    losses = []
    pretrain.optimise(
        model,
        pretrain.batches(lambda k: pretrain.text_rows(tokenizer, 64, k), 16),
        steps=25,
        learning_rate=6e-3,
        cool_down=0.4,
        report=lambda step, loss: losses.append(loss),
    )
    assert losses[-1] < losses[0] - 0.5  # a running mean


def test_batches_hold_every_row_once(tokenizer):
    stream = pretrain.batches(lambda k: pretrain.text_rows(tokenizer, 10, k), 4)
    chunk = [next(stream) for _ in range(3)]
    rows = sorted(row["input_ids"] for group in chunk for row in group)
    assert rows == sorted(r["input_ids"] for r in pretrain.text_rows(tokenizer, 10, 0))


@pytest.mark.parametrize("name", CARDS)
def test_both_models_carry_the_shipped_tokenizer(name):
    shipped = AutoTokenizer.from_pretrained(pretrain.WEIGHTS / "tokenizer")
    carried = AutoTokenizer.from_pretrained(pretrain.WEIGHTS / name)
    assert carried.get_vocab() == shipped.get_vocab()
    assert carried.chat_template == shipped.chat_template == curriculum.CHAT_TEMPLATE


@pytest.mark.slow
def test_the_tokenizer_can_be_built_again(tokenizer):
    built = curriculum.build_tokenizer()
    assert len(built) == len(tokenizer)
    text = "Wim grill Monday, so 14 days. 3 x 12 = 36."
    assert built.decode(built(text)["input_ids"]) == text


@pytest.mark.slow
def test_a_killed_build_goes_on_from_the_last_finished_stage(tmp_path, monkeypatch):
    monkeypatch.setattr(pretrain, "PARTIAL", tmp_path / "partial")
    monkeypatch.setattr(pretrain, "accuracy", lambda *a, **k: {"all": 0.0})
    legs = [pretrain.Stage(("our shop",), layers, 2, 1e-3) for layers in (1, 2)]
    monkeypatch.setitem(pretrain.RECIPES, "teacher", legs)
    original, stages = pretrain.optimise, []

    def killed_in_the_second_stage(model, *args, **settings):
        stages.append(model.config.num_hidden_layers)
        if stages == [1, 2]:
            raise KeyboardInterrupt
        original(model, *args, **settings)

    monkeypatch.setattr(pretrain, "optimise", killed_in_the_second_stage)
    monkeypatch.setattr(pretrain.Log, "minutes", property(lambda log: log.before + 5))
    with pytest.raises(KeyboardInterrupt):
        pretrain.build("teacher", tmp_path / "out", seed=0, threads=1)
    card = pretrain.build("teacher", tmp_path / "out", seed=0, threads=1)
    assert stages == [1, 2, 2]
    assert [line["step"] for line in card["log"]] == [2, 2]
    assert [line["minutes"] for line in card["log"]] == [5, 10]
    assert not list((tmp_path / "partial").glob("*"))


@pytest.mark.parametrize("corpus", pretrain.CORPORA)
def test_every_corpus_can_be_drawn_again(tokenizer, corpus):
    rows = pretrain.CORPORA[corpus](tokenizer, 12, 3)
    assert rows == pretrain.CORPORA[corpus](tokenizer, 12, 3)
    assert len(rows) >= 12
    for row in rows:
        assert len(row["input_ids"]) == len(row["labels"]) < 512
        learnt = [i for i in row["labels"] if i != IGNORE_INDEX]
        assert learnt and set(learnt) <= set(row["input_ids"])


def test_the_student_base_never_reads_our_shop():
    corpora = {c for stage in pretrain.RECIPES["student"] for c in stage.corpora}
    assert "our shop" not in corpora
    assert OUR_SHOP.name not in {shop.name for shop in OTHER_SHOPS}


def test_other_shops_differ_from_ours():
    assert len({tuple(shop.prices.items()) for shop in OTHER_SHOPS}) == len(OTHER_SHOPS)
