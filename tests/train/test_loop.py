"""The training loop on models of a few thousand random weights."""

import copy
import itertools
import math

import pytest
import torch
from datasets import Dataset
from transformers import (
    Gemma3ForCausalLM,
    Gemma3TextConfig,
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
    Phi3Config,
    Phi3ForCausalLM,
    Qwen3Config,
    Qwen3ForCausalLM,
)

import helpers.train
from helpers.data import collate
from helpers.losses import SparseTargets, distillation_loss, sparse_divergence
from helpers.models import add_lora
from tests.damage import damaged, notices

V = 20


@pytest.fixture(scope="session")
def train():
    return helpers.train


def llama(seed: int = 0, vocab_size: int = V) -> LlamaForCausalLM:
    torch.manual_seed(seed)
    return LlamaForCausalLM(
        LlamaConfig(
            vocab_size=vocab_size,
            hidden_size=16,
            intermediate_size=24,
            num_hidden_layers=1,
            num_attention_heads=2,
            num_key_value_heads=2,
            initializer_range=0.3,  # far from uniform, so that there is much to learn
            pad_token_id=0,
        )
    )


def gpt2(seed: int = 0, dropout: float = 0.0) -> GPT2LMHeadModel:
    torch.manual_seed(seed)
    config = GPT2Config(
        vocab_size=V,
        n_positions=16,
        n_embd=16,
        n_layer=1,
        n_head=2,
        resid_pdrop=dropout,
        embd_pdrop=dropout,
        attn_pdrop=dropout,
        bos_token_id=1,
        eos_token_id=1,
    )
    return GPT2LMHeadModel(config)


SMALL = {
    "vocab_size": V,
    "hidden_size": 16,
    "intermediate_size": 24,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 2,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 1,
}


def qwen3() -> Qwen3ForCausalLM:
    return Qwen3ForCausalLM(Qwen3Config(**SMALL, head_dim=8))


def phi3() -> Phi3ForCausalLM:
    return Phi3ForCausalLM(Phi3Config(**SMALL))


def gemma3() -> Gemma3ForCausalLM:
    config = Gemma3TextConfig(**SMALL, head_dim=8, final_logit_softcapping=5.0)
    return Gemma3ForCausalLM(config)


def make_rows(n: int = 24, seed: int = 0) -> list[dict]:
    """Prompts of 2 to 5 tokens, then answers of 1 to 4; the last token never occurs."""
    generator = torch.Generator().manual_seed(seed)

    def integer(low, high):
        return torch.randint(low, high, (1,), generator=generator).item()

    rows = []
    for _ in range(n):
        prompt = [integer(1, V - 1) for _ in range(integer(2, 6))]
        answer = [integer(1, V - 1) for _ in range(integer(1, 5))]
        rows.append(
            {"input_ids": prompt + answer, "labels": [-100] * len(prompt) + answer}
        )
    return rows


ROWS = make_rows()
QUICK = {"steps": 3, "batch_size": 8, "learning_rate": 1e-2, "progress": False}


def weights(model) -> dict[str, torch.Tensor]:
    return {name: value.clone() for name, value in model.state_dict().items()}


def same(a: dict, b: dict) -> bool:
    return all(torch.equal(a[name], b[name]) for name in a)


# ---------------------------------------------------------------- what fit does


@pytest.mark.parametrize("make", [llama, gpt2])
def test_fit_lowers_the_loss(make):
    settings = QUICK | {"steps": 100, "learning_rate": 1e-2}
    hard = helpers.train.fit(make(), ROWS, **settings)
    assert hard.loss == hard.hard_loss and all(map(math.isnan, hard.soft_loss))
    assert sum(hard.loss[-3:]) < 0.6 * sum(hard.loss[:3])
    soft = helpers.train.fit(
        make(0), ROWS, teacher=make(1), soft_weight=1.0, **settings
    )
    assert soft.loss == soft.soft_loss
    assert sum(soft.loss[-3:]) < 0.5 * sum(soft.loss[:3])


def test_the_loss_of_a_step_is_the_distillation_loss_of_its_rows(train):
    """All rows in one step, whatever the accumulation, and every setting passed on."""
    student, teacher = llama(0), llama(1)
    batch = collate(ROWS, 0)
    labels = batch.pop("labels")
    settings = {"soft_weight": 0.3, "temperature": 3.0, "kind": "jsd"}
    with torch.no_grad():
        logits = student(**batch).logits, labels, teacher(**batch).logits
        expected = distillation_loss(*logits, **settings).item()
        hard = distillation_loss(*logits, soft_weight=0.0).item()
    for accumulation in (1, 3, 8):
        history = train.fit(
            copy.deepcopy(student),
            ROWS,
            teacher=teacher,
            steps=2,
            batch_size=len(ROWS) // accumulation,
            accumulation=accumulation,
            learning_rate=1e-3,
            progress=False,
            **settings,
        )
        assert history.loss[0] == pytest.approx(expected, rel=1e-5)
        assert history.hard_loss[0] == pytest.approx(hard, rel=1e-5)
        assert 0.7 * hard + 0.3 * history.soft_loss[0] == pytest.approx(expected)


def test_fit_equals_a_bare_loop_of_torch(train):
    """The same steps by a second route: all rows in each, a constant learning rate."""
    student, teacher = llama(0), llama(1)
    bare = copy.deepcopy(student)
    optimiser = torch.optim.AdamW(bare.parameters(), lr=1e-2, weight_decay=0.1)
    batch = collate(ROWS, 0)
    labels = batch.pop("labels")
    for _ in range(4):
        with torch.no_grad():
            teacher_logits = teacher(**batch).logits
        optimiser.zero_grad()
        distillation_loss(bare(**batch).logits, labels, teacher_logits).backward()
        torch.nn.utils.clip_grad_norm_(bare.parameters(), 0.5)
        optimiser.step()
    train.fit(
        student,
        ROWS,
        teacher=teacher,
        steps=4,
        batch_size=len(ROWS),
        learning_rate=1e-2,
        weight_decay=0.1,
        max_grad_norm=0.5,
        warmup=0,
        schedule="constant",
        progress=False,
    )
    for name, value in weights(bare).items():
        torch.testing.assert_close(weights(student)[name], value, atol=1e-5, rtol=1e-4)


def test_history_has_one_entry_a_step(train):
    history = train.fit(llama(), ROWS, warmup=0.2, **QUICK | {"steps": 20})
    assert history.step == list(range(1, 21))
    rates = history.learning_rate
    for values in (history.loss, history.hard_loss, history.soft_loss, rates):
        assert len(values) == 20
    assert max(rates) == rates[4] == 1e-2  # after a fifth of the steps
    assert rates[:5] == sorted(rates[:5]) and rates[4:] == sorted(rates[4:])[::-1]
    assert rates[-1] < 1e-3 and history.seconds > 0
    linear = train.fit(llama(), ROWS, schedule="linear", warmup=0, **QUICK)
    assert linear.learning_rate == pytest.approx([1e-2, 2e-2 / 3, 1e-2 / 3])


def test_teacher_is_unchanged_bit_for_bit(train):
    teacher = llama(1)
    before = weights(teacher)
    student = llama(0)
    train.fit(student, ROWS, teacher=teacher, **QUICK)
    assert same(before, weights(teacher))
    assert all(p.grad is None for p in teacher.parameters())
    assert not same(weights(llama(0)), weights(student))


def test_bug_10_accumulation_8x1_equals_1x8(train):
    """transformers#34191, trl#4719. Weights after three steps, rows of many lengths."""
    runs = []
    for batch_size, accumulation in ((8, 1), (2, 4), (1, 8)):
        student = llama(0)
        settings = {"batch_size": batch_size, "accumulation": accumulation}
        history = train.fit(student, ROWS, teacher=llama(1), **QUICK | settings)
        runs.append((weights(student), history.loss))
    for got, losses in runs[1:]:
        assert losses == pytest.approx(runs[0][1], rel=1e-5)
        for name, value in runs[0][0].items():
            torch.testing.assert_close(got[name], value, atol=1e-5, rtol=1e-5)


def test_bug_11_teacher_is_in_eval_and_student_in_train_mode(train):
    """trl#5862. Also when the teacher comes in train mode, and only while fit runs."""
    student, teacher = gpt2(0, dropout=0.3).eval(), gpt2(1, dropout=0.3).train()
    modes = {"student": set(), "teacher": set()}
    for name, model in (("student", student), ("teacher", teacher)):
        for module in model.modules():
            module.register_forward_hook(
                lambda m, *_, name=name: modes[name].add(m.training)
            )
    train.fit(student, ROWS, teacher=teacher, **QUICK)
    assert modes == {"student": {True}, "teacher": {False}}
    assert not student.training and not teacher.training


def test_bug_11_shared_parameters_are_refused(train):
    student, other = llama(), llama(1)
    other.model.embed_tokens = student.model.embed_tokens
    for teacher in (student, other):
        with pytest.raises(ValueError, match="copy.deepcopy"):
            train.fit(student, ROWS, teacher=teacher, **QUICK)


def test_bug_12_columns_that_only_one_model_has(train):
    with pytest.raises(ValueError, match="shared_vocab"):
        train.fit(llama(), ROWS, teacher=llama(1, vocab_size=V + 3), **QUICK)
    wide = llama(1, vocab_size=V + 3)
    narrow = llama(1)
    narrow.load_state_dict(
        {
            name: value[:V] if value.shape[0] == V + 3 else value
            for name, value in wide.state_dict().items()
        }
    )
    losses = [
        train.fit(llama(), ROWS, teacher=teacher, vocab=V, **QUICK).loss
        for teacher in (wide, narrow)
    ]
    assert losses[0] == pytest.approx(losses[1])


def test_bug_19_each_model_reads_each_batch_once(train):
    student, teacher = llama(0), llama(1)
    calls = []
    for model in (student, teacher):
        model.register_forward_hook(lambda m, *_: calls.append(m))
    settings = QUICK | {"batch_size": 4, "accumulation": 3}
    train.fit(student, ROWS, teacher=teacher, **settings)
    assert calls.count(student) == calls.count(teacher) == 3 * 3


def test_same_seed_same_weights(train):
    runs = []
    for seed in (0, 0, 1):
        student, teacher = gpt2(dropout=0.2), gpt2(1)
        torch.manual_seed(len(runs))  # what happened before fit must not matter
        train.fit(student, ROWS, teacher=teacher, seed=seed, **QUICK)
        runs.append(weights(student))
    assert same(runs[0], runs[1])
    assert not same(runs[0], runs[2])


def test_a_nan_is_named_and_stops_before_it_spoils_the_weights(train):
    rows = [dict(row) for row in ROWS[:8]]
    rows[5] = {"input_ids": [3, V - 1, 4], "labels": [-100, -100, 4]}
    student, teacher = llama(0), llama(1)
    with torch.no_grad():
        teacher.model.embed_tokens.weight[V - 1] = torch.nan
    settings = QUICK | {"batch_size": 2, "steps": 4}
    with pytest.raises(FloatingPointError, match=r"step \d: the loss is nan") as error:
        train.fit(student, rows, teacher=teacher, **settings)
    step = int(str(error.value).split()[1].rstrip(":"))
    lengths = [len(row["input_ids"]) for row in rows]
    chosen = next(itertools.islice(train.batches(lengths, 2, 0), step - 1, None))
    assert 5 in chosen and f"rows {sorted(chosen)}" in str(error.value)
    assert all(p.isfinite().all() and p.grad is None for p in student.parameters())
    assert not student.training


def test_only_parameters_that_require_a_gradient_are_trained(train):
    student = llama()
    student.model.embed_tokens.requires_grad_(False)
    before = weights(student)
    train.fit(student, ROWS, weight_decay=0.1, **QUICK)
    after = weights(student)
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert changed == set(before) - {"model.embed_tokens.weight"}


def test_lora_leaves_the_base_alone(train):
    student = add_lora(llama(), rank=2)
    before = weights(student)
    train.fit(student, ROWS, teacher=llama(1), **QUICK)
    after = weights(student)
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert changed == {name for name in before if "lora_" in name}


def test_rows_may_be_a_dataset_and_any_padding_id_does(train):
    runs = []
    for rows, pad in ((ROWS, None), (Dataset.from_list(ROWS), None), (ROWS, 7)):
        student = llama()
        train.fit(student, rows, pad_token_id=pad, group_by_length=False, **QUICK)
        runs.append(weights(student))
    assert same(runs[0], runs[1])
    for name, value in runs[0].items():
        torch.testing.assert_close(runs[2][name], value)
    without = gpt2()
    assert without.config.pad_token_id is None
    train.fit(without, ROWS, **QUICK)


def test_what_cannot_be_trained_is_refused(train):
    masked = [{"input_ids": [1, 2, 3], "labels": [-100] * 3}]
    for rows in ([], masked):
        with pytest.raises(ValueError, match="encode_chat"):
            train.fit(llama(), rows, **QUICK)
    with pytest.raises(ValueError, match="add_lora"):
        train.fit(llama().requires_grad_(False), ROWS, **QUICK)
    with pytest.raises(ValueError, match="soft_weight"):
        train.fit(llama(), ROWS, teacher=llama(1), soft_weight=1.5, **QUICK)
    with pytest.raises(ValueError):
        train.fit(llama(), ROWS, schedule="none", **QUICK)


def test_progress_can_be_silenced(train, capfd):
    train.fit(llama(), ROWS, **QUICK)
    assert capfd.readouterr().err == ""
    train.fit(llama(), ROWS, **QUICK | {"progress": True})
    assert "fit" in capfd.readouterr().err


# ---------------------------------------------------------------- watching


def test_watching_changes_nothing_in_the_training(train):
    """The same weights, although the watch draws random numbers."""
    runs, drawn = [], []

    def drawing(step, student):
        drawn.append(torch.rand(3))
        return step

    for settings in ({}, {"every": 2, "watch": drawing}):
        student = gpt2(dropout=0.3)
        history = train.fit(student, ROWS, **QUICK | {"steps": 5} | settings)
        runs.append((weights(student), history.loss))
        drawn.append(torch.rand(3))  # the random state that is left behind
        assert not student.training
    assert same(runs[0][0], runs[1][0]) and runs[0][1] == runs[1][1]
    assert torch.equal(drawn[0], drawn[-1])
    assert history.watched == {2: 2, 4: 4, 5: 5}


def test_the_watch_sees_the_student_of_its_step_in_eval_mode(train):
    student, seen = gpt2(dropout=0.3), []

    def watch(step, model):
        assert model is student and not torch.is_grad_enabled()
        assert not any(module.training for module in model.modules())
        seen.append(weights(model))

    train.fit(student, ROWS, every=1, watch=watch, **QUICK)
    assert len(seen) == 3 and same(seen[-1], weights(student))
    shorter = gpt2(dropout=0.3)
    settings = QUICK | {"steps": 1, "warmup": 0, "schedule": "constant"}
    train.fit(shorter, ROWS, **settings)
    longer = gpt2(dropout=0.3)
    seen.clear()
    student = longer
    train.fit(longer, ROWS, every=1, watch=watch, **settings | {"steps": 3})
    assert same(seen[0], weights(shorter))


def test_a_watch_stops_the_training(train):
    whole, stopped = llama(), llama()

    def watch(step, student):
        if step == 4:
            raise train.StopTraining("enough")
        return step

    settings = QUICK | {"steps": 10}
    history = train.fit(stopped, ROWS, every=2, watch=watch, **settings)
    assert history.watched == {2: 2, 4: "enough"}
    assert history.step == [1, 2, 3, 4] and history.seconds > 0
    assert not stopped.training and stopped.lm_head.weight.grad is None
    assert history.loss == train.fit(whole, ROWS, **settings).loss[:4]

    def without_result(step, student):
        raise train.StopTraining

    history = train.fit(llama(), ROWS, every=1, watch=without_result, **QUICK)
    assert history.watched == {1: None} and len(history.loss) == 1


def test_other_exceptions_of_a_watch_go_through(train):
    student = llama()

    def watch(step, student):
        raise KeyError("a mistake of mine")

    with pytest.raises(KeyError, match="a mistake of mine"):
        train.fit(student, ROWS, every=1, watch=watch, **QUICK)
    assert not student.training


def test_a_watch_needs_to_know_when(train):
    for settings in ({"every": 2}, {"watch": print}, {"watch": print, "every": -1}):
        with pytest.raises(ValueError, match="watch and every"):
            train.fit(llama(), ROWS, **QUICK | settings)


# ---------------------------------------------------------------- teachers' signals


def test_a_model_a_live_teacher_and_a_function_teach_the_same(train):
    runs = []
    for wrap in (
        lambda model: model,
        train.LiveTeacher,
        lambda model: train.LiveTeacher(model, V),
        lambda model: lambda batch: train.LiveTeacher(model)(batch).log_softmax(-1),
    ):
        student = llama(0)
        train.fit(student, ROWS, teacher=wrap(llama(1)), **QUICK)
        runs.append(weights(student))
    assert same(runs[0], runs[1]) and same(runs[0], runs[2])
    for name, value in runs[0].items():
        torch.testing.assert_close(runs[3][name], value, atol=1e-5, rtol=1e-4)


def test_a_signal_gets_the_batches_of_collate_and_answers_for_kept_positions(train):
    teacher, seen = llama(1), []

    def signal(batch):
        seen.append(batch)
        logits = teacher(batch["input_ids"], batch["attention_mask"]).logits.detach()
        return logits[:, :-1][batch["labels"][:, 1:] != -100]

    students = llama(0), llama(0)
    history = train.fit(students[0], ROWS, teacher=signal, **QUICK)
    live = train.fit(students[1], ROWS, teacher=teacher, **QUICK)
    assert history.loss == pytest.approx(live.loss, rel=1e-5)
    lengths = [len(row["input_ids"]) for row in ROWS]
    chosen = itertools.islice(train.batches(lengths, 8), 3)
    for batch, numbers in zip(seen, chosen, strict=True):
        expected = collate([ROWS[i] for i in numbers], 0)
        assert same(expected, batch) and set(batch) == set(expected)


def test_sparse_targets_teach(train):
    """A signal of token ids and log-probabilities, at its own temperature."""
    live = train.LiveTeacher(llama(1))

    def signal(batch):
        logprobs, ids = (live(batch) / 3).log_softmax(-1).topk(4)
        return SparseTargets(ids, logprobs, "bucket", 3.0)

    settings = QUICK | {"soft_weight": 1.0, "temperature": 3.0}
    settings |= {"batch_size": len(ROWS)}
    student = llama(0)
    batch = collate(ROWS, 0)
    before = sparse_divergence(
        train.kept_logits(student, batch).detach(), *signal(batch)[:2], temperature=3.0
    )
    history = train.fit(student, ROWS, teacher=signal, **settings)
    assert history.loss[0] == pytest.approx(9 * before.mean().item(), rel=1e-5)
    with pytest.raises(ValueError, match="softened by temperature 3"):
        train.fit(llama(), ROWS, teacher=signal, **settings | {"temperature": 1.0})


def test_a_mixture_teaches_the_mean_of_its_teachers(train):
    batch = collate(ROWS, 0)
    teachers = [train.LiveTeacher(llama(seed)) for seed in (1, 2)]
    p, q = (teacher(batch).softmax(-1) for teacher in teachers)
    mixture = train.TeacherMixture(teachers, [3, 1])
    torch.testing.assert_close(mixture(batch).exp(), 0.75 * p + 0.25 * q)
    train.fit(llama(0), ROWS, teacher=mixture, **QUICK)
    alone = train.TeacherMixture(teachers, [1.0, 0.0])
    runs = [
        train.fit(llama(0), ROWS, teacher=teacher, **QUICK).loss
        for teacher in (alone, teachers[0])
    ]
    assert runs[0] == pytest.approx(runs[1], rel=1e-4)
    with pytest.raises(ValueError, match="2 teachers, but 1 weights"):
        train.TeacherMixture(teachers, [1.0])
    ids = torch.zeros(1, 1, dtype=torch.long)
    sparse = train.TeacherMixture([lambda _: SparseTargets(ids, ids.float())], [1.0])
    with pytest.raises(ValueError, match="'hidden' or 'dense'"):
        sparse(batch)


def test_a_teacher_inside_a_signal_is_not_trained_either(train):
    student = llama()
    live = train.LiveTeacher(student)
    for teacher in (live, train.TeacherMixture([lambda batch: None, live], [1, 1])):
        with pytest.raises(ValueError, match="copy.deepcopy"):
            train.fit(student, ROWS, teacher=teacher, **QUICK)
    teacher = llama(1).requires_grad_(True)
    assert not train.LiveTeacher(teacher)(collate(ROWS, 0)).requires_grad


@pytest.mark.parametrize("lora", [False, True])
@pytest.mark.parametrize("make", [llama, gpt2, qwen3, phi3, gemma3])
def test_logits_are_computed_where_a_label_is_kept_and_nowhere_else(make, lora):
    torch.manual_seed(0)
    model = (add_lora(make(), rank=2) if lora else make()).eval()
    batch = collate(ROWS, 0)
    inputs = {name: batch[name] for name in ("input_ids", "attention_mask")}
    whole = model(**inputs).logits[:, :-1][batch["labels"][:, 1:] != -100]
    rows = []  # that went through the output matrix
    model.get_output_embeddings().register_forward_hook(
        lambda module, inputs, output: rows.append(output.shape)
    )
    logits = helpers.train.kept_logits(model, batch)
    torch.testing.assert_close(logits, whole)
    assert rows == [whole.shape]


# ---------------------------------------------------------------- the order of rows


@pytest.mark.parametrize("group_by_length", [True, False])
def test_an_epoch_holds_every_row_once_in_a_new_order(train, group_by_length):
    lengths = [3 + i % 7 for i in range(50)]

    def epochs(seed):
        stream = train.batches(lengths, 8, seed, group_by_length)
        return [list(itertools.islice(stream, 7)) for _ in range(2)]

    first, second = epochs(0)
    for epoch in (first, second):
        assert sorted(itertools.chain(*epoch)) == list(range(50))
        assert sorted(map(len, epoch)) == [2, 8, 8, 8, 8, 8, 8]
    assert first != second
    assert epochs(0) == [first, second] and epochs(1) != [first, second]


def test_grouping_by_length_pads_less(train):
    lengths = torch.randint(5, 100, (512,), generator=torch.Generator().manual_seed(0))
    lengths = lengths.tolist()

    def padded(group):
        stream = itertools.islice(train.batches(lengths, 16, 0, group), 32)
        return sum(len(batch) * max(lengths[i] for i in batch) for batch in stream)

    assert padded(True) < 1.2 * sum(lengths) < 1.5 * sum(lengths) < padded(False)


# ---------------------------------------------------------------- planted bugs

PLANTED = {
    "teacher left in train mode": (
        "        self.model.eval()\n        there",
        "        there",
        test_bug_11_teacher_is_in_eval_and_student_in_train_mode,
    ),
    "eval mode flipped on the student too": (
        "    student.train()\n",
        "    student.train(), student.eval()\n",
        test_bug_11_teacher_is_in_eval_and_student_in_train_mode,
    ),
    "student left in train mode": (
        "        student.eval()\n",
        "        pass\n",
        test_bug_11_teacher_is_in_eval_and_student_in_train_mode,
    ),
    "sum of micro-batch means": (
        "num_items=num_items,\n",
        "num_items=None,\n",
        test_bug_10_accumulation_8x1_equals_1x8,
    ),
    "gradients pile up": (
        "            optimiser.zero_grad()\n",
        "",
        test_fit_equals_a_bare_loop_of_torch,
    ),
    "not finite, not noticed": (
        "if not (math.isfinite(loss) and math.isfinite(norm)):",
        "if False:",
        test_a_nan_is_named_and_stops_before_it_spoils_the_weights,
    ),
    "dropout not seeded": (
        "torch.manual_seed(seed)",
        "pass",
        test_same_seed_same_weights,
    ),
    "columns not sliced": (
        "logits[..., :vocab]",
        "logits",
        test_bug_12_columns_that_only_one_model_has,
    ),
    "gradient kept for the teacher": (
        "    @torch.no_grad()\n    def __call__",
        "    def __call__",
        test_a_teacher_inside_a_signal_is_not_trained_either,
    ),
    "shared parameters of a signal not seen": (
        'hasattr(teacher, "parameters")',
        "isinstance(teacher, Module)",
        test_a_teacher_inside_a_signal_is_not_trained_either,
    ),
    "teacher run twice": (
        "else signal(batch)",
        "else signal(batch) + 0 * signal(batch)",
        test_bug_19_each_model_reads_each_batch_once,
    ),
    "mean of logits in place of a mixture": (
        "mix_teachers(logprobs, self.weights.to(logprobs))",
        "logprobs.mean(0)",
        test_a_mixture_teaches_the_mean_of_its_teachers,
    ),
    "temperature not passed on": (
        "temperature=temperature,\n",
        "\n",
        test_the_loss_of_a_step_is_the_distillation_loss_of_its_rows,
    ),
    "the watch draws from the training's numbers": (
        "torch.random.fork_rng(gpus)",
        "torch.enable_grad(), torch.no_grad()",
        test_watching_changes_nothing_in_the_training,
    ),
    "eval mode left on after the watch": (
        "        student.train()\n\n\ndef check",
        "        pass\n\n\ndef check",
        test_watching_changes_nothing_in_the_training,
    ),
    "watched in train mode": (
        "    student.eval()\n    try:",
        "    try:",
        test_the_watch_sees_the_student_of_its_step_in_eval_mode,
    ),
    "watched before the step": (
        "watch and (step % every == 0",
        "watch and ((step + 1) % every == 0",
        test_a_watch_stops_the_training,
    ),
    "the last step not watched": (
        " or step == steps)",
        ")",
        test_watching_changes_nothing_in_the_training,
    ),
    "stopped without a result": (
        "stop.args[0] if stop.args else None",
        "None",
        test_a_watch_stops_the_training,
    ),
    "same order in every epoch": (
        'f"{seed} {epoch}"',
        'f"{seed}"',
        lambda train: test_an_epoch_holds_every_row_once_in_a_new_order(train, True),
    ),
}


@pytest.mark.parametrize("test", dict.fromkeys(test for *_, test in PLANTED.values()))
def test_a_copy_without_a_bug_passes(test):
    with damaged(helpers.train) as copy:
        test(copy)


@pytest.mark.parametrize("bug", PLANTED)
def test_a_planted_bug_is_noticed(bug):
    old, new, test = PLANTED[bug]
    with damaged(helpers.train, old, new) as copy:
        assert notices(test, copy)
