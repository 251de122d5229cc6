"""Metrics against values worked out by hand or by another library.

Tests that take a module as fixture are also run against damaged copies of it, each with
one bug planted: the test meant for that bug must reject it.
"""

import copy
import sys
import types
import warnings

import numpy as np
import pandas as pd
import pytest
import sacrebleu
import torch
from rouge_score import rouge_scorer
from scipy import special, stats
from sklearn.calibration import calibration_curve

import helpers.evaluate.calibration
import helpers.evaluate.intervals
import helpers.evaluate.judge
import helpers.evaluate.likelihood
import helpers.evaluate.metrics
import helpers.evaluate.scoring
from helpers import data, evaluate, generate, world
from tests.damage import damage, notices


@pytest.fixture(scope="session")
def intervals():
    return helpers.evaluate.intervals


@pytest.fixture(scope="session")
def metrics():
    return helpers.evaluate.metrics


@pytest.fixture(scope="session")
def calibration():
    return helpers.evaluate.calibration


@pytest.fixture(scope="session")
def judge():
    return helpers.evaluate.judge


@pytest.fixture(scope="session")
def likelihood():
    return helpers.evaluate.likelihood


@pytest.fixture(scope="session")
def scoring():
    return helpers.evaluate.scoring


def test_bootstrap_agrees_with_scipy():
    rng = np.random.default_rng(0)
    values = rng.random(300) < 0.8
    ours = evaluate.accuracy(values)
    theirs = stats.bootstrap((values,), np.mean, method="percentile",
                             n_resamples=2000, rng=rng).confidence_interval  # fmt: skip
    assert ours.value == values.mean()
    assert abs(ours.low - theirs.low) < 0.01 and abs(ours.high - theirs.high) < 0.01


def test_intervals_hold_the_truth_about_95_times_in_100():
    rng = np.random.default_rng(1)
    held = 0
    for trial in range(200):
        sample = rng.random(200) < 0.7
        interval = evaluate.bootstrap(np.mean, sample, resamples=400, seed=trial)
        held += interval.low <= 0.7 <= interval.high
    assert 0.90 <= held / 200 <= 0.99


def test_retention_is_a_ratio_of_means_on_the_same_items():
    student, teacher = [1, 0, 0, 1], [1, 1, 0, 1]
    assert evaluate.retention(student, teacher).value == pytest.approx(2 / 3)
    same = evaluate.retention(teacher * 25, teacher * 25)
    assert (same.low, same.value, same.high) == (1, 1, 1), "pairs were torn apart"


def test_impossible_samples_are_refused():
    with pytest.raises(ValueError, match="never|no right answer"):
        evaluate.retention([1, 0], [0, 0])
    with pytest.raises(ValueError, match="one length"):
        evaluate.bootstrap(np.mean, [1, 0], [1])
    with pytest.raises(ValueError, match="at least one"):
        evaluate.bootstrap(np.mean, [])


def test_score_and_by_task():
    examples = world.examples("test", 20)
    answers = [e.answer if i % 2 else "Sorry?" for i, e in enumerate(examples)]
    scored = evaluate.score(examples, answers).assign(model="half")
    assert scored["right"].tolist() == [bool(i % 2) for i in range(20)]
    table = evaluate.by_task(scored)
    assert list(table.index) == [*world.TASKS, "all"]
    assert table.loc["all", "half"] == 0.5


@pytest.mark.slow
def test_compare_asks_every_model_the_same(teacher, student):
    examples = world.examples("test", 10)
    models = {"teacher": teacher, "again": teacher, "student": student}
    scored = evaluate.compare(models, examples)
    answers = scored.pivot(index="id", columns="model", values="answer")
    assert len(scored) == 30
    assert (answers["teacher"] == answers["again"]).all()
    assert (answers["teacher"] != answers["student"]).any()


@pytest.mark.slow
def test_agreement_with_oneself_is_complete(teacher, student):
    rows = [data.tokenize_chat(teacher.tokenizer, e.row()["messages"])
            for e in world.examples("test", 12)]  # fmt: skip
    same = evaluate.agreement(teacher.model, teacher.model, rows)
    assert same == {"top1": 1.0, "forward_kl": 0.0}
    one = evaluate.agreement(student.model, teacher.model, rows, batch_size=1)
    batch = evaluate.agreement(student.model, teacher.model, rows, batch_size=12)
    assert one == pytest.approx(batch, rel=1e-4)
    assert batch["top1"] < 1 and batch["forward_kl"] > 0


# ---------------------------------------------------------------- intervals


def test_fast_and_slow_bootstrap_draw_the_same(intervals):
    rng = np.random.default_rng(2)
    first, second = rng.random((2, 700))

    def slow(x, y):
        return x.mean() / max(y.mean(), 1 / len(y))

    fast = intervals.bootstrap(intervals.ratio_of_means, first, second)
    assert fast == intervals.bootstrap(slow, first, second)
    # The plain loop that anyone would write first.
    rng = np.random.default_rng(0)
    rows = [rng.integers(0, 700, 700) for _ in range(2000)]
    low, high = np.percentile([slow(first[r], second[r]) for r in rows], [2.5, 97.5])
    assert (fast.low, fast.high) == (low, high)


def test_intervals_say_how_they_differ_in_shape(intervals):
    with pytest.raises(ValueError, match=r"one length.*\(2,\), \(1,\)"):
        intervals.bootstrap(np.mean, [1, 0], [1])
    with pytest.raises(ValueError, match="NaN"):
        intervals.accuracy([1, float("nan")])
    for students in ([[1, 0]], [[1, 0], [1]], [1, 0]):
        with pytest.raises(ValueError, match="at least two rows of one length"):
            intervals.over_seeds(np.mean, students)
    with pytest.raises(ValueError, match="one length"):
        intervals.retention([[1, 0], [1, 1]], [1, 1, 0])


def test_all_right_is_not_certain(intervals):
    found = intervals.accuracy([True] * 60)
    z2 = stats.norm.ppf(0.975) ** 2
    assert (found.value, found.high) == (1, 1)
    assert found.low == pytest.approx(60 / (60 + z2))
    wilson = stats.binomtest(60, 60).proportion_ci(method="wilson")
    assert found.low == pytest.approx(wilson.low)
    none = intervals.accuracy(np.zeros((3, 60)))  # three seeds, nothing right
    assert (none.value, none.low) == (0, 0)
    assert none.high == pytest.approx(1 - wilson.low)


def simulated(rng, seeds, items, spread):
    """Right answers of students (seeds, items) and of a teacher: items differ in
    difficulty, seeds in skill."""
    ease = 1.5 * rng.normal(size=items)
    skill = spread * rng.normal(size=(seeds, 1))
    students = rng.random((seeds, items)) < special.expit(1.2 + ease + skill)
    return students, rng.random(items) < special.expit(2.2 + ease)


def truth(spread):
    """What these students and this teacher would score on endlessly many items."""
    normal = stats.norm.ppf((np.arange(400) + 0.5) / 400)
    ease = 1.5 * normal
    student = special.expit(1.2 + ease + spread * normal[:, None]).mean()
    return student, special.expit(2.2 + ease).mean()


def coverage(interval, target, seeds, spread, trials=300, items=200):
    """Share of simulated experiments whose interval holds the target."""
    rng = np.random.default_rng(7)
    held = 0
    for trial in range(trials):
        found = interval(*simulated(rng, seeds, items, spread), seed=trial)
        held += found.low <= target <= found.high
    return held / trials


def test_accuracy_covers_95_in_100(intervals):
    def interval(students, teacher, seed):
        return intervals.accuracy(students[0], resamples=300, seed=seed)

    assert 0.92 <= coverage(interval, truth(0)[0], 1, 0) <= 0.98


def test_retention_covers_95_in_100(intervals):
    def interval(students, teacher, seed):
        return intervals.retention(students[0], teacher, resamples=300, seed=seed)

    student, teacher = truth(0)
    assert 0.92 <= coverage(interval, student / teacher, 1, 0) <= 0.98


@pytest.mark.parametrize("seeds", [3, 5])
def test_several_seeds_cover_95_in_100(intervals, seeds):
    def interval(students, teacher, seed):
        return intervals.accuracy(students, resamples=300, seed=seed)

    assert 0.92 <= coverage(interval, truth(0.6)[0], seeds, 0.6) <= 0.98


def test_retention_of_several_seeds_covers_95_in_100(intervals):
    def interval(students, teacher, seed):
        return intervals.retention(students, teacher, resamples=300, seed=seed)

    student, teacher = truth(0.6)
    assert 0.92 <= coverage(interval, student / teacher, 3, 0.6) <= 0.98
    # Seeds that do not differ at all: wide, never too narrow.
    student, teacher = truth(0)
    assert coverage(interval, student / teacher, 3, 0) >= 0.95


def test_seeds_that_differ_more_than_items_rule_the_interval(intervals):
    """On endless items three seeds are three numbers: Student's t interval of them."""
    students = np.array([[0, 1] * 800, [1, 1] * 800, [1, 1, 1, 0] * 400])
    found = intervals.over_seeds(np.mean, students, resamples=20_000, seed=1)
    low, high = stats.t.interval(0.95, 2, 0.75, np.std([0.5, 1, 0.75], ddof=1) / 3**0.5)
    assert found.value == 0.75
    assert (found.low, found.high) == pytest.approx((low, high), abs=0.05)
    shares = intervals.accuracy(students)
    assert 0 < shares.low and shares.high == 1, "an accuracy stays within 0 and 1"
    assert intervals.retention(students - 0.5 > 0, [1] * 1600).low >= 0


def test_a_mean_of_ratios_is_no_retention(intervals):
    """Teacher 3 of 4, student 2 of 4: 2/3 is kept. A mean over items of student/teacher
    would say 1/2, or infinity where the teacher is wrong and the student right."""
    assert intervals.retention([1, 0, 0, 1], [1, 1, 0, 1]).value == pytest.approx(2 / 3)
    assert intervals.retention([1, 1], [1, 0]).value == 2
    several = intervals.retention([[1, 0, 0, 1], [1, 1, 1, 1]], [1, 1, 0, 1])
    assert several.value == pytest.approx((2 / 3 + 4 / 3) / 2)


def test_pairs_stay_together(intervals):
    right = np.random.default_rng(0).random(300) < 0.5
    same = intervals.retention(right, right)
    assert (same.low, same.high) == (1, 1)


def test_mcnemar_by_hand(intervals):
    """8 items only the first got right, 2 only the second, 5 both, 5 neither: the
    chance of 8 : 2 or worse in 10 tosses is 2 (1 + 10 + 45) / 1024."""
    first = [1] * 8 + [0] * 2 + [1] * 5 + [0] * 5
    second = [0] * 8 + [1] * 2 + [1] * 5 + [0] * 5
    assert intervals.mcnemar(first, second) == (8, 2, pytest.approx(112 / 1024))
    assert intervals.mcnemar(second, first) == (2, 8, pytest.approx(112 / 1024))
    assert intervals.mcnemar(first, first) == (0, 0, 1.0)
    with pytest.raises(ValueError, match="right or wrong"):
        intervals.mcnemar([0.5, 1], [1, 0])
    with pytest.raises(ValueError, match="one length"):
        intervals.mcnemar([1], [1, 0])
    with pytest.raises(ValueError, match="at least one item"):
        intervals.mcnemar([], [])


def test_mcnemar_keeps_its_promise_for_equal_students(intervals):
    """Equal students: p below 0.05 in at most 5 of 100 experiments."""
    rng = np.random.default_rng(0)
    p = [intervals.mcnemar(*(rng.random((2, 100)) < 0.7)).p for _ in range(400)]
    assert 0.01 < np.mean(np.array(p) < 0.05) <= 0.06


# ---------------------------------------------------------------- texts


def test_exact_match_and_f1_by_hand(metrics):
    assert metrics.normalise("  The Mug, a red\none! ") == "mug red one"
    assert metrics.exact_match("The mug.", "mug")
    assert not metrics.exact_match("Theatre", "atre"), "articles are whole words"
    assert metrics.token_f1("the red mug returns", "a blue mug returns today") == 4 / 7
    # Words count as often as they occur: 2 shared of 3 and 2.
    assert metrics.token_f1("very very good", "very very") == pytest.approx(4 / 5)
    assert metrics.token_f1("", "the") == 1 and metrics.token_f1("", "mug") == 0
    assert metrics.token_f1("1.5", "15") == 1, "full stops vanish, as in SQuAD"


def test_the_best_of_several_golds_counts(metrics):
    golds = ["no", "yes, it is"]
    assert metrics.exact_match("Yes it is", golds)
    assert metrics.token_f1("yes", golds) == 0.5
    assert metrics.rouge_l("yes it is", golds) == 1
    for nothing in ([], [3], None):
        with pytest.raises((ValueError, TypeError)):
            metrics.token_f1("yes", nothing)


def test_rouge_l_by_hand_and_as_the_library_has_it(metrics):
    # The longest common subsequence a c d: precision 3/4, recall 3/5.
    assert metrics.rouge_l("a b c d", "a c d e f") == pytest.approx(2 / 3)
    theirs = rouge_scorer.RougeScorer(["rougeL"])
    rows = world.examples("test", 40)
    for one, other in zip(rows, rows[5:], strict=False):
        expected = theirs.score(other.answer, one.answer)["rougeL"].fmeasure
        assert metrics.rouge_l(one.answer, other.answer) == expected


def test_rouge_l_reads_other_scripts(metrics):
    assert metrics.rouge_l("Ναι, σήμερα", "ναι σήμερα") == 1
    # A character of Chinese is a word: 3 of 4 in order.
    assert metrics.rouge_l("我今天来", "我明天来") == 0.75


def test_bleu_by_hand_and_as_the_library_has_it(metrics):
    # 5 of 6 words, 3 of 5 pairs, 2 of 4 triples, 1 of 3 runs of four; equal lengths.
    found = metrics.bleu(["the cat sat on the mat"], ["the cat sat on a mat"])
    assert found.score == pytest.approx(100 * (5 / 6 * 3 / 5 * 2 / 4 * 1 / 3) ** 0.25)
    assert "tok:13a" in found.signature and "version:2.6.0" in found.signature
    answers = [e.answer for e in world.examples("test", 30)]
    golds = answers[5:] + answers[:5]
    theirs = sacrebleu.corpus_bleu(answers, [golds]).score
    assert metrics.bleu(answers, golds).score == theirs
    pairs = [[gold, answer] for gold, answer in zip(golds, answers, strict=True)]
    pairs[0] = pairs[0][1]  # one text beside lists of two
    assert metrics.bleu(answers, pairs).score == pytest.approx(100)
    with pytest.raises(ValueError, match="2 answers, 1 golds"):
        metrics.bleu(["a", "b"], ["a"])
    with pytest.raises(ValueError, match="0 answers"):
        metrics.bleu([], [])


def test_text_scores_are_the_metrics_of_each_row(metrics):
    table = metrics.text_scores(["the mug", "no"], ["mug", "no way"])
    assert table["exact"].tolist() == [1, 0]
    assert table["f1"].tolist() == [1, 2 / 3]
    assert table["rouge_l"].tolist() == [2 / 3, 2 / 3]
    with pytest.raises(ValueError):
        metrics.text_scores(["a"], ["a", "b"])


# ---------------------------------------------------------------- likelihood


@pytest.fixture(scope="module")
def gold_rows(student):
    return data.encode_chat([e.row() for e in world.examples("test", 9)],
                            student.tokenizer)  # fmt: skip


def test_nll_of_a_uniform_model_is_log_v(small_model, gold_rows):
    torch.nn.init.zeros_(small_model.lm_head.weight)
    table = evaluate.token_scores(small_model, gold_rows)
    width = small_model.config.vocab_size
    assert table["nll"].to_numpy() == pytest.approx(np.log(width))
    assert table["confidence"].to_numpy() == pytest.approx(1 / width)
    labels = sum(label != -100 for row in gold_rows for label in row["labels"])
    assert len(table) == labels, "every answer token and the end, no prompt"


def test_nll_is_the_loss_of_transformers(student, gold_rows):
    row = {key: torch.tensor([value]) for key, value in gold_rows[0].items()}
    loss = student.model(**row).loss.item()
    assert evaluate.nll(student.model, [gold_rows[0]]) == pytest.approx(loss, rel=1e-5)


def test_bug_04_07_rows_do_not_depend_on_their_batch(student, teacher, gold_rows):
    pair = student.model, gold_rows, teacher.model
    together = evaluate.token_scores(*pair, batch_size=9)
    alone = evaluate.token_scores(*pair, batch_size=1)
    assert np.allclose(together.astype(float), alone.astype(float), atol=1e-4)
    assert together["row"].is_monotonic_increasing
    mean = together.groupby("row")["nll"].mean().mean()
    assert evaluate.nll(student.model, gold_rows) != pytest.approx(mean, rel=1e-3)
    assert evaluate.nll(student.model, gold_rows) == pytest.approx(alone["nll"].mean())


def test_bug_11_models_read_in_eval_mode_and_keep_their_mode(small_model, gold_rows):
    modes = []
    small_model.register_forward_hook(lambda m, *_: modes.append(m.training))
    small_model.train()
    evaluate.agreement(small_model, small_model, gold_rows)
    assert not any(modes) and small_model.training


def test_bug_12_only_shared_columns_are_compared(student, gold_rows):
    wide = copy.deepcopy(student.model)
    wide.resize_token_embeddings(len(student.tokenizer) + 64, mean_resizing=False)
    torch.nn.init.normal_(wide.get_output_embeddings().weight[-64:].data, std=9)
    vocab = len(student.tokenizer)
    settings = {"vocab": vocab, "top_k": 5}
    same = evaluate.agreement(student.model, wide, gold_rows, **settings)
    assert same == pytest.approx({"top1": 1, "forward_kl": 0, "top_k": 1}, abs=1e-6)


def test_top_k_overlap_by_hand(likelihood):
    student = torch.tensor([[5.0, 4, 3, 0], [9, 8, 7, 6]])
    teacher = torch.tensor([[4.0, 5, 0, 3], [9, 6, 7, 8]])
    for k, expected in ((1, [0, 1]), (2, [1, 0.5]), (3, [2 / 3, 2 / 3]), (9, [1, 1])):
        found = likelihood._of_pairs(student, teacher, k)
        assert found["top_k"].tolist() == pytest.approx(expected)
    assert found["top1"].tolist() == [False, True]


def test_agreement_says_top_k_when_asked(teacher, student, gold_rows):
    pair = student.model, teacher.model, gold_rows
    plain, more = evaluate.agreement(*pair), evaluate.agreement(*pair, top_k=5)
    assert set(plain) == {"top1", "forward_kl"}
    assert {name: more[name] for name in plain} == plain
    assert 0 < more["top_k"] < 1
    with pytest.raises(ValueError, match="no rows"):
        evaluate.agreement(*pair[:2], [])


# ---------------------------------------------------------------- calibration


def test_ece_by_hand(calibration):
    # Half the items are 90 % sure and half right; the others 60 % sure, all right.
    confidence, right = [0.9, 0.9, 0.6, 0.6], [1, 0, 1, 1]
    assert calibration.ece(confidence, right, 10) == pytest.approx(0.4)
    # Three at 0.8, all right: 0.75 * 0.2; one at 0.3, wrong: 0.25 * 0.3.
    found = calibration.ece([0.8, 0.8, 0.8, 0.3], [1, 1, 1, 0], 10)
    assert found == pytest.approx(0.75 * 0.2 + 0.25 * 0.3)
    assert calibration.ece([1.0, 0.0], [1, 0]) == 0


def test_reliability_agrees_with_sklearn(calibration):
    rng = np.random.default_rng(0)
    confidence = rng.random(500).round(2)  # some on the edges of bins
    right = rng.random(500) < confidence**2
    table = calibration.reliability(confidence, right, 10)
    assert table["count"].sum() == 500
    some = table[table["count"] > 0]
    accuracy, mean = calibration_curve(right, confidence, n_bins=10)
    assert some["accuracy"].to_numpy() == pytest.approx(accuracy)
    assert some["confidence"].to_numpy() == pytest.approx(mean)


def test_a_calibrated_model_has_little_ece(calibration):
    rng = np.random.default_rng(0)
    confidence = rng.random(20_000)
    right = rng.random(20_000) < confidence
    assert calibration.ece(confidence, right) < 0.02
    assert calibration.ece(confidence, ~right) > 0.3


def test_impossible_confidences_are_refused(calibration):
    for confidence, right, message in (
        ([0.5], [1, 0], "1 confidences and 2 outcomes"),
        ([], [], "at least one"),
        ([1.2], [1], "from 0 to 1"),
        ([float("nan")], [1], "from 0 to 1"),
    ):
        with pytest.raises(ValueError, match=message):
            calibration.ece(confidence, right)


def test_answer_confidence_is_the_product_of_its_tokens(calibration, student):
    examples = world.examples("test", 5)
    prompts = [e.messages for e in examples]
    answers = [e.answer for e in examples]
    sure = calibration.answer_confidence(student, prompts, answers, batch_size=2)
    for example, row in zip(examples, sure.itertuples(), strict=True):
        encoded = data.tokenize_chat(student.tokenizer, example.row()["messages"])
        ids = torch.tensor([encoded["input_ids"]])
        with torch.inference_mode():
            p = student.model(ids).logits[0, :-1].softmax(-1)
        p = p.gather(-1, ids[0, 1:, None])[:, 0]
        kept = p[torch.tensor(encoded["labels"][1:]) != -100].double()
        assert row.answer == pytest.approx(kept.prod().item(), rel=1e-3)
        mean = kept.prod().item() ** (1 / len(kept))
        assert row.token_mean == pytest.approx(mean, rel=1e-3)


# ---------------------------------------------------------------- scoring


def row(id, gold, turns=1, **keys):
    messages = [{"role": "user", "content": "Question?"}]
    more = [{"role": "assistant", "content": "Well?"}, messages[0]] * (turns - 1)
    last = [{"role": "assistant", "content": gold}]
    return {"id": id, "messages": [*messages, *more, *last], **keys}


def test_chat_rows_are_scored_by_exact_match_or_a_rule_of_ones_own(scoring):
    rows = [row("a", "Ja."), row("b", "Nein", turns=3, task="x", split="dev")]
    scored = scoring.score(rows, ["ja", "ja"])
    assert scored["right"].tolist() == [True, False]
    assert scored["turns"].tolist() == [1, 3]
    assert scored["task"].tolist() == ["-", "x"]
    assert scored["split"].tolist() == ["-", "dev"]
    own = scoring.score(rows, ["ja", "ja"], right=lambda row, said: said == "ja")
    assert own["right"].all()
    prompt = {"id": "c", "messages": rows[0]["messages"][:-1], "answer": ["yes", "ja"]}
    assert scoring.score([prompt], ["Ja!"])["right"].all()
    del prompt["answer"]
    with pytest.raises(data.DataError, match="'c' has no gold answer"):
        scoring.score([prompt], ["Ja!"])


def test_answers_and_examples_must_be_as_many(scoring):
    for examples, answers in (([], []), (world.examples("test", 2), ["one"])):
        with pytest.raises(ValueError, match="each example needs one answer"):
            scoring.score(examples, answers)
    with pytest.raises(ValueError, match="no models"):
        scoring.compare({}, world.examples("test", 2))


def scored_by_hand(**models):
    """model -> the right answers of each seed, as `compare` would give them."""
    lines = [
        (f"q{i}", "qa" if i % 2 else "math", "said", right, "test", 1 + i % 2, name, s)
        for name, seeds in models.items()
        for s, answers in enumerate(seeds)
        for i, right in enumerate(answers)
    ]
    names = ["id", "task", "answer", "right", "split", "turns", "model", "seed"]
    return pd.DataFrame(lines, columns=names)


def test_paired_puts_every_model_in_one_order(scoring):
    scored = scored_by_hand(teacher=[[1, 1, 0]], student=[[1, 0, 0], [0, 0, 1]])
    mixed = scored.sample(frac=1, random_state=0).sort_values("id", kind="stable")
    arrays = scoring.paired(mixed)
    assert arrays["teacher"].tolist() == [1, 1, 0]
    assert arrays["student"].tolist() == [[1, 0, 0], [0, 0, 1]]


def test_pairs_with_other_ids_are_refused(scoring):
    scored = scored_by_hand(teacher=[[1, 1]], student=[[1, 0]])
    for bad, message in (
        (scored.drop(index=3), "'student' did not answer all the items"),
        (scored.replace({"id": {"q1": "q0"}}), "answers one id twice"),
    ):
        with pytest.raises(ValueError, match=message):
            scoring.paired(bad)
    other = scored.assign(id=["q0", "q1", "q0", "q7"])
    with pytest.raises(ValueError, match="did not answer all the items"):
        scoring.paired(other)


class Parrot:
    """A `generate.Teacher` that says what a function makes of the question."""

    def __init__(self, say):
        self.say = say

    def describe(self):
        return {"model": "parrot"}

    def replies(self, requests, sampling):
        for place, request in enumerate(requests):
            said = self.say(request.messages[-1]["content"])
            yield place, generate.Reply(said) if said else generate.Reply.failed("busy")


def test_compare_takes_a_teacher_behind_an_address():
    rows = [row("a", "Question?"), row("b", "No")]
    found = evaluate.compare({"api": Parrot(str)}, rows, batch_size=4, max_new_tokens=3)
    assert found["right"].tolist() == [True, False]
    with pytest.warns(UserWarning, match="2 of 2 requests failed"):
        found = evaluate.compare({"api": Parrot(lambda text: "")}, rows)
    assert not found["right"].any()


# ---------------------------------------------------------------- the whole table


def at(table, model, metric, group="all"):
    chosen = table[(table["model"] == model) & (table["metric"] == metric)]
    (found,) = chosen[chosen["group"] == group].to_dict("records")
    return found


def test_the_table_by_hand():
    scored = scored_by_hand(
        teacher=[[1, 1, 1, 0]],
        student=[[1, 0, 1, 0], [1, 1, 1, 1]],
        other=[[0, 1, 0, 0]],
    )
    scored["nll"], scored["tokens"] = [1, 2, 3, 4] * 4, [1, 1, 2, 6] * 4
    scored["confidence"] = 0.75
    table = evaluate.summarise(scored, resamples=200)
    assert at(table, "teacher", "accuracy")["value"] == 0.75
    assert at(table, "student", "accuracy")["value"] == 0.75
    assert at(table, "student", "retention")["value"] == 1
    assert at(table, "other", "retention")["value"] == pytest.approx(1 / 3)
    assert at(table, "other", "retention", "qa")["value"] == 1  # items 1 and 3
    assert at(table, "other", "accuracy", "2")["value"] == 0.5  # two turns
    assert at(table, "student", "NLL")["value"] == 1, "10 nats over 10 tokens"
    assert at(table, "other", "ECE")["value"] == 0.5
    assert at(table, "student", "ECE")["value"] == 0.25, "mean of |.5-.75| and |1-.75|"
    assert at(table, "student", "accuracy")["seeds"] == 2
    assert at(table, "student", "accuracy", "math")["items"] == 2
    assert not ((table["model"] == "teacher") & (table["metric"] == "retention")).any()
    assert (table.dropna()["low"] <= table.dropna()["value"]).all()
    assert (table.dropna()["value"] <= table.dropna()["high"]).all()
    with pytest.raises(ValueError, match="no answers"):
        evaluate.summarise(scored[:0])


@pytest.mark.slow
def test_report_measures_two_splits_and_draws(teacher, student):
    splits = {name: world.examples(name, 5) for name in ("test", "shifted")}
    api = Parrot(lambda text: "Sorry?")
    models = {"teacher": teacher, "student": [student, student], "api": api}
    found = evaluate.report(models, splits, resamples=50, top_k=5)
    assert len(found.answers) == 2 * 4 * 5
    wide = found.wide("test")
    assert list(wide.index) == ["teacher", "student", "api"]
    names = {*evaluate.METRICS, "retention", "BLEU", "ECE"}
    assert set(wide.columns) == names
    assert wide.loc["student", ["forward KL", "NLL"]].min() > 0
    assert wide.loc["api", ["NLL", "forward KL", "ECE"]].isna().all()
    assert wide.loc["teacher", ["forward KL", "retention"]].isna().all()
    assert "tok:13a" in found.table.attrs["BLEU"]
    # The second route: the functions that a learner calls one by one.
    rows = data.encode_chat([e.row() for e in splits["test"]], student.tokenizer)
    alike = evaluate.agreement(student.model, teacher.model, rows, top_k=5)
    columns = ["top1", "forward_kl", "top_k"]
    expected = [alike[name] for name in columns]
    measured = wide.loc["student", ["top-1", "forward KL", "top-k"]]
    assert measured.tolist() == pytest.approx(expected, rel=1e-4)
    nll = evaluate.nll(student.model, rows)
    assert wide.loc["student", "NLL"] == pytest.approx(nll, rel=1e-4)
    by_turns = found.wide("shifted", "turns")
    assert by_turns.index.names == ["group", "model"]
    panels = found.figure("A finding").axes
    assert [axes.get_title() or axes.get_title("left") for axes in panels] == [
        "test", "shifted",
    ]  # fmt: skip
    with pytest.raises(ValueError, match="no splits"):
        evaluate.report(models, {})


# ---------------------------------------------------------------- a judge


PROMPTS = [[{"role": "user", "content": f"Question {i}?"}] for i in range(4)]


def longer(text):
    """A judge that prefers the longer answer, and reads both."""
    a, b = (text.split(f"Answer {x}: ")[1].split("\n")[0] for x in "AB")
    return "tie" if len(a) == len(b) else "A" if len(a) > len(b) else "B."


def test_a_judge_that_reads_is_believed(judge):
    long, short = ["long answer"] * 4, ["short"] * 3 + ["as long too"]
    judged = judge.judge_pairs(Parrot(longer), PROMPTS, long, short, progress=False)
    assert judged["winner"].tolist() == ["first"] * 3 + ["tie"]
    assert judge.win_rate(judged).value == 3.5 / 4
    assert judge.position_bias(judged) == 0
    swapped = judge.judge_pairs(Parrot(longer), PROMPTS, short, long, progress=False)
    assert swapped["winner"].tolist() == ["second"] * 3 + ["tie"]


@pytest.mark.parametrize("place", ["A", "**B**", "Answer A\nIt is first.", "[[B]]"])
def test_a_judge_that_goes_by_place_says_nothing(judge, place):
    always = Parrot(lambda text: place)
    judged = judge.judge_pairs(always, PROMPTS, ["x"] * 4, ["y"] * 4, progress=False)
    assert judged["winner"].tolist() == ["tie"] * 4
    assert judge.win_rate(judged).value == 0.5
    assert judge.position_bias(judged) == 1


@pytest.mark.parametrize("reply", ["A better one is B", "Both are fine", ""])
def test_a_reply_without_a_verdict_is_no_tie(judge, reply):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of failed requests, which are in play here
        judged = judge.judge_pairs(Parrot(lambda text: reply), PROMPTS, ["x"] * 4,
                                   ["y"] * 4, progress=False)  # fmt: skip
    assert judged["winner"].tolist() == ["unclear"] * 4
    with pytest.raises(ValueError, match="at least one item"):
        judge.win_rate(judged)


def test_what_a_judge_thinks_aloud_is_no_verdict(judge):
    musing = Parrot(lambda text: "<think>A, or is it? B.</think> tie")
    judged = judge.judge_pairs(musing, PROMPTS, ["x"] * 4, ["y"] * 4, progress=False)
    assert (judged[["in_order", "swapped"]] == "tie").all(axis=None)


def test_verdicts_are_kept_and_not_asked_twice(judge, tmp_path):
    asked = []
    say = Parrot(lambda text: asked.append(text) or longer(text))
    pair = PROMPTS, ["longer"] * 4, ["{b}"] * 4
    for _ in range(2):
        judged = judge.judge_pairs(
            say, *pair, path=tmp_path / "v.jsonl", progress=False
        )
    assert len(asked) == 8 and (judged["winner"] == "first").all()


def test_judges_are_asked_whole_questions(judge):
    with pytest.raises(ValueError, match="4 prompts, 1 and 4 answers"):
        judge.judge_pairs(Parrot(str), PROMPTS, ["x"], ["y"] * 4)
    with pytest.raises(ValueError, match="0 prompts"):
        judge.judge_pairs(Parrot(str), [], [], [])
    for question in ("{a} or {b}?", "{prompt} {a} {b} {c}"):
        with pytest.raises(ValueError, match="question"):
            judge.judge_pairs(Parrot(str), PROMPTS, ["x"] * 4, ["y"] * 4,
                              question=question)  # fmt: skip


# ---------------------------------------------------------------- lm-eval


def test_lm_eval_is_asked_for_in_one_line(monkeypatch, student):
    monkeypatch.setitem(sys.modules, "lm_eval", None)
    with pytest.raises(ImportError, match='pip install "lm-eval'):
        evaluate.lm_eval_scores(student, ["gsm8k"])


def test_lm_eval_results_become_a_tidy_table(monkeypatch, student):
    results = {"arc": {"alias": "arc", "acc,none": 0.5, "acc_stderr,none": 0.1,
                       "em,strict": 0.25, "em_stderr,strict": "N/A"}}  # fmt: skip
    asked = {}

    def simple_evaluate(**settings):
        asked.update(settings)
        return {"results": results}

    lm_eval = types.SimpleNamespace(simple_evaluate=simple_evaluate)
    monkeypatch.setitem(sys.modules, "lm_eval", lm_eval)
    monkeypatch.setitem(sys.modules, "lm_eval.models", types.ModuleType("models"))
    wrapper = types.SimpleNamespace(HFLM=lambda **settings: settings)
    monkeypatch.setitem(sys.modules, "lm_eval.models.huggingface", wrapper)
    table = evaluate.lm_eval_scores(student, ["arc"], batch_size=2, limit=5)
    assert table["metric"].tolist() == ["acc", "em (strict)"]
    assert table["value"].tolist() == [0.5, 0.25]
    assert table["error"][0] == 0.1 and np.isnan(table["error"][1])
    assert asked["limit"] == 5 and asked["model"]["batch_size"] == 2


# ---------------------------------------------------------------- planted bugs

PLANTED = {
    "mean of ratios": (
        helpers.evaluate.intervals,
        "np.mean(above, axis) / np.maximum(below.mean(axis), least)",
        "np.mean(above / np.maximum(below, least), axis)",
        test_a_mean_of_ratios_is_no_retention,
    ),
    "pairs torn apart": (
        helpers.evaluate.intervals,
        "statistic(*(array[rows] for array in arrays), axis=-1)",
        "statistic(*(a[rng.integers(0, n, rows.shape)] for a in arrays), axis=-1)",
        test_pairs_stay_together,
    ),
    "seeds left out": (
        helpers.evaluate.intervals,
        "draws += error",
        "draws += 0 * error",
        lambda module: test_several_seeds_cover_95_in_100(module, 5),
    ),
    "a normal in place of Student's t": (
        helpers.evaluate.intervals,
        "rng.standard_t(len(values) - 1, resamples)",
        "rng.standard_normal(resamples)",
        lambda module: test_several_seeds_cover_95_in_100(module, 3),
    ),
    "items left out": (
        helpers.evaluate.intervals,
        "    draws += error",
        "    draws = 0 * draws + np.mean(values) + error",
        test_retention_of_several_seeds_covers_95_in_100,
    ),
    "percentiles of 90 %": (
        helpers.evaluate.intervals,
        "[2.5, 97.5]",
        "[5, 95]",
        test_accuracy_covers_95_in_100,
    ),
    "certain of 60 right ones": (
        helpers.evaluate.intervals,
        "if found.value in (0, 1):",
        "if False:",
        test_all_right_is_not_certain,
    ),
    "McNemar counts what both got right": (
        helpers.evaluate.intervals,
        "first > second",
        "first >= second",
        test_mcnemar_by_hand,
    ),
    "words count once": (
        helpers.evaluate.metrics,
        "(Counter(answer) & Counter(gold)).total()",
        "len(set(answer) & set(gold))",
        test_exact_match_and_f1_by_hand,
    ),
    "articles inside words": (
        helpers.evaluate.metrics,
        r"\b(a|an|the)\b",
        "(a|an|the)",
        test_exact_match_and_f1_by_hand,
    ),
    "first gold only": (
        helpers.evaluate.metrics,
        "else list(gold)",
        "else list(gold)[:1]",
        test_the_best_of_several_golds_counts,
    ),
    "a to z only": (
        helpers.evaluate.metrics,
        "tokenizer=Words()",
        "",
        test_rouge_l_reads_other_scripts,
    ),
    "bins count alike": (
        helpers.evaluate.calibration,
        '(distance * table["count"]).sum() / table["count"].sum()',
        "distance.mean()",
        test_ece_by_hand,
    ),
    "errors cancel": (
        helpers.evaluate.calibration,
        '(table["accuracy"] - table["confidence"]).abs()',
        '(table["accuracy"] - table["confidence"])',
        test_ece_by_hand,
    ),
    "others' items paired": (
        helpers.evaluate.scoring,
        "if (answered < len(order)).any():",
        "if False:",
        test_pairs_with_other_ids_are_refused,
    ),
    "shown in one order twice": (
        helpers.evaluate.judge,
        "pair[::-1]",
        "pair",
        test_a_judge_that_reads_is_believed,
    ),
    "the first order decides": (
        helpers.evaluate.judge,
        'return in_order if in_order == swapped else "tie"',
        "return in_order",
        lambda module: test_a_judge_that_goes_by_place_says_nothing(module, "A"),
    ),
    "mute judges call it a tie": (
        helpers.evaluate.judge,
        'return "unclear"',
        'return "tie"',
        lambda module: test_a_reply_without_a_verdict_is_no_tie(module, "Both"),
    ),
    "overlap in order only": (
        helpers.evaluate.likelihood,
        "(theirs[:, :, None] == ours[:, None, :]).any(-1)",
        "theirs == ours",
        test_top_k_overlap_by_hand,
    ),
}


@pytest.mark.parametrize("bug", PLANTED)
def test_a_planted_bug_is_noticed(bug):
    module, old, new, test = PLANTED[bug]
    test(damage(module))
    assert notices(test, damage(module, old, new))
