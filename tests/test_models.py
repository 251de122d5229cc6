"""Loading, shared vocabularies, LoRA and merging."""

import copy
import dataclasses
from types import SimpleNamespace

import pytest
import torch

from helpers import models
from helpers.models import VocabularyMismatch


def rows(n):
    return SimpleNamespace(vocab_size=n)


def test_the_teacher_is_frozen_and_in_eval_mode(teacher):
    assert not teacher.model.training
    assert not any(p.requires_grad for p in teacher.model.parameters())


def test_student_and_teacher_share_their_vocabulary(student, teacher):
    shared = models.shared_vocab(
        student.tokenizer, teacher.tokenizer, student.model.config, teacher.model.config
    )
    assert shared == len(student.tokenizer) == student.model.config.vocab_size


def test_padded_rows_over_one_tokenizer_are_sliced_to_the_smaller(tokenizer):
    n = len(tokenizer)
    assert models.shared_vocab(tokenizer, tokenizer, rows(n + 64), rows(n + 8)) == n + 8


def test_a_token_that_only_one_has_is_outside_the_shared_rows(tokenizer):
    longer = copy.deepcopy(tokenizer)
    longer.add_tokens(["<|tool|>"])
    n = len(tokenizer)
    assert models.shared_vocab(longer, tokenizer, rows(n + 64), rows(n + 64)) == n


def test_equal_width_with_another_tokenizer_is_refused(tokenizer):
    other = copy.deepcopy(tokenizer)
    swapped = dict(tokenizer.get_vocab())
    first, second = tokenizer.convert_ids_to_tokens([700, 900])
    swapped[first], swapped[second] = 900, 700
    other.get_vocab = lambda: swapped
    with pytest.raises(
        VocabularyMismatch, match="2 of 1,024 ids differ.*id 700"
    ) as error:
        models.shared_vocab(other, tokenizer, rows(1024), rows(1024))
    assert repr(first) in str(error.value) and repr(second) in str(error.value)


def test_too_few_rows_for_the_tokenizer_are_refused(tokenizer):
    with pytest.raises(VocabularyMismatch, match="do not belong together"):
        models.shared_vocab(tokenizer, tokenizer, rows(1000), rows(1024))


def test_missing_weights_say_what_to_do(track, tmp_path):
    empty = dataclasses.replace(track, teacher=str(tmp_path / "teacher"))
    with pytest.raises(FileNotFoundError, match="make weights"):
        models.load_teacher(empty)


# ---------------------------------------------------------------- LoRA


@pytest.fixture
def probe():
    return torch.randint(0, 1024, (2, 20), generator=torch.Generator().manual_seed(0))


def test_lora_starts_as_the_base_and_trains_only_its_own_matrices(student, probe):
    before = {k: v.clone() for k, v in student.model.state_dict().items()}
    lora = models.add_lora(student.model, rank=4)
    assert torch.equal(lora(probe).logits, student.model(probe).logits)
    trainable = [n for n, p in lora.named_parameters() if p.requires_grad]
    assert trainable and all("lora_" in name for name in trainable)
    torch.nn.init.normal_(
        lora.base_model.model.model.layers[0].mlp.up_proj.lora_B.default.weight
    )
    assert not torch.equal(lora(probe).logits, student.model(probe).logits)
    assert all(torch.equal(v, before[k]) for k, v in student.model.state_dict().items())


def wake(lora):
    """Give the zero matrices B values, as training would."""
    torch.manual_seed(1)
    for name, parameter in lora.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.02)
    return lora


def test_a_merged_model_equals_its_adapter(student, probe):
    lora = wake(models.add_lora(student.model, rank=4))
    expected = lora(probe).logits
    merged = models.merge(lora)
    torch.testing.assert_close(merged(probe).logits, expected, atol=1e-4, rtol=0)
    assert type(merged) is type(student.model)
    assert torch.equal(lora(probe).logits, expected), (
        "merging changed the adapted model"
    )


def test_merging_that_changes_the_answer_is_refused(student):
    lora = wake(models.add_lora(student.model, rank=4))
    with pytest.raises(ValueError, match="merging changed the logits"):
        models.merge(lora, tolerance=0.0)
