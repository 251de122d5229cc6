"""The teacher's signal on disk: exact, keyed by its row, and honest about damage."""

import copy
import json
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import LlamaConfig, LlamaForCausalLM

import helpers.train.cache  # and with it the modules that it is made of
from helpers import data, world
from helpers.data import collate
from helpers.losses import SparseTargets, token_divergence
from helpers.models import ChatModel
from tests.damage import damaged, notices
from tests.train.test_loop import QUICK, gemma3, gpt2, llama, make_rows, weights

V = 20
ROWS = make_rows(60)


@pytest.fixture(scope="session")
def train():
    return helpers.train


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "cache"


class Words:
    """As much of a tokenizer as a cache looks at."""

    def __init__(self, size: int = V, first: str = "zero"):
        self.words = {first: 0} | {f"word {i}": i for i in range(1, size)}

    def get_vocab(self) -> dict[str, int]:
        return self.words


def chat(model=None, **words) -> ChatModel:
    return ChatModel((model or llama(1)).eval(), Words(**words))


def write(train, folder, teacher=None, rows=ROWS, **settings):
    settings = {"progress": False, "batch_size": 7, "k": 5} | settings
    return train.write_cache(teacher or chat(), rows, folder, **settings)


def live(model, batch, temperature: float = 1.0) -> torch.Tensor:
    return (helpers.train.LiveTeacher(model)(batch) / temperature).log_softmax(-1)


def everything(c, rows=ROWS):
    return c(collate(rows, 0))


# ---------------------------------------------------------------- what comes back


def test_dense_and_hidden_give_the_teachers_distribution(train, folder):
    teacher, batch = chat(), collate(ROWS, 0)
    for kind, limit in (("dense", 1e-6), ("hidden", 1e-10)):
        c = write(train, folder / kind, teacher, kind=kind)
        assert len(c) == len(ROWS) and c.tokens == len(live(teacher.model, batch))
        for temperature in (0.5, 1.0, 3.0):
            gap = token_divergence(
                everything(c).double(),
                live(teacher.model, batch).double(),
                temperature=temperature,
            )
            assert gap.max() < limit, (kind, temperature)


@pytest.mark.parametrize("make", [gpt2, gemma3])
def test_hidden_states_replay_other_architectures(train, folder, make):
    """Gemma caps its logits softly; GPT-2 keeps its layers under other names."""
    torch.manual_seed(0)
    teacher = chat(make())
    c = write(train, folder, teacher, kind="hidden")
    expected = live(teacher.model, collate(ROWS, 0))
    torch.testing.assert_close(everything(c).log_softmax(-1), expected)
    assert c.read(collate(ROWS, 0))["hidden"].shape == (c.tokens, 16)
    assert c.head["weight"].shape == (V, 16)


def test_a_head_that_cannot_be_replayed_is_refused(train, folder):
    teacher = chat()
    teacher.model.get_output_embeddings().register_forward_hook(
        lambda module, inputs, logits: 3 * logits
    )
    with pytest.raises(train.CacheError, match="use topk or sampled"):
        write(train, folder, teacher, kind="hidden")


@pytest.mark.parametrize("temperature", [1.0, 2.0])
def test_topk_keeps_the_likeliest_and_the_mass_of_the_rest(train, folder, temperature):
    teacher = chat()
    c = write(train, folder, teacher, temperature=temperature)
    logprobs, ids = live(teacher.model, collate(ROWS, 0), temperature).topk(5)
    targets = everything(c)
    assert isinstance(targets, SparseTargets)
    assert targets.tail == "bucket" and targets.temperature == temperature
    assert torch.equal(targets.token_ids, ids)
    torch.testing.assert_close(targets.logprobs, logprobs, rtol=1e-3, atol=1e-4)
    mass = logprobs.exp().sum(-1)
    torch.testing.assert_close(
        targets.logprobs.exp().sum(-1), mass, rtol=1e-3, atol=1e-4
    )
    assert c.kept_mass == pytest.approx(mass.mean().item(), abs=1e-3)
    other = train.open_cache(folder, tail="renormalise")
    assert everything(other).tail == "renormalise"


def test_topk_of_a_sure_teacher_keeps_its_small_tail(train, folder):
    """Mass of the tail 1e-5: rounded log-probabilities alone would get it wrong."""
    model = llama(1)
    with torch.no_grad():
        model.lm_head.weight *= 20
    teacher = chat(model)
    targets = everything(write(train, folder, teacher, k=3))
    logprobs = live(teacher.model, collate(ROWS, 0)).topk(3).values.double()
    tail = 1 - logprobs.exp().sum(-1)
    assert tail.median() < 1e-3
    got = 1 - targets.logprobs.double().exp().sum(-1)
    torch.testing.assert_close(got, tail, rtol=0.01, atol=5e-7)


def test_topk_of_the_whole_vocabulary_is_the_whole_distribution(train, folder):
    teacher = chat()
    c = write(train, folder, teacher, k=50)
    assert c.settings["k"] == V and c.kept_mass == pytest.approx(1)
    student = live(llama(7), collate(ROWS, 0))
    targets = everything(c)
    full = token_divergence(student, live(teacher.model, collate(ROWS, 0)))
    sparse = helpers.losses.sparse_divergence(student, *targets[:2])
    torch.testing.assert_close(sparse, full, atol=1e-3, rtol=1e-3)


def test_bug_16_samples_follow_the_teacher(train, folder):
    """verl#7856. Shares of 20,000 draws against the probabilities they came from."""
    teacher = chat()
    c = write(train, folder, teacher, ROWS[:5], kind="sampled", samples=20_000)
    batch = collate(ROWS[:5], 0)
    targets = c(batch)
    assert targets.tail == "sampled"
    shares = torch.zeros(c.tokens, V).scatter_add(
        1, targets.token_ids, targets.logprobs.exp()
    )
    torch.testing.assert_close(shares.sum(-1), torch.ones(c.tokens))
    p = live(teacher.model, batch).exp()
    deviation = (p * (1 - p) / 20_000).sqrt()
    assert ((shares - p).abs() < 5 * deviation + 1e-6).all()


def test_samples_count_what_was_drawn(train, folder):
    c = write(train, folder, kind="sampled", samples=12)
    targets = everything(c)
    assert targets.token_ids.shape == (c.tokens, 12)
    counts = 12 * targets.logprobs.exp()
    torch.testing.assert_close(counts, counts.round())
    torch.testing.assert_close(counts.sum(-1), torch.full((c.tokens,), 12.0))
    for ids, kept in zip(targets.token_ids, targets.logprobs.isfinite(), strict=True):
        assert ids[kept].unique().numel() == kept.sum()
    assert (targets.logprobs == -torch.inf).any()  # a token that was drawn twice


def test_ids_of_any_vocabulary_survive(train):
    for vocab, width in ((200, 1), (65_536, 2), (151_936, 3), (262_144, 3)):
        ids = torch.randint(0, vocab, (50, 4))
        ids[0] = torch.tensor([0, vocab - 1, vocab // 2, 255 % vocab])
        packed = train.cache_codec.pack(ids, vocab)
        assert packed.shape == (50, 4, width) and packed.dtype == torch.uint8
        assert torch.equal(train.cache_codec.unpack(packed), ids)


def test_columns_that_only_the_teacher_has_are_left_out(train, folder):
    teacher = chat()
    batch = collate(ROWS, 0)
    expected = train.LiveTeacher(teacher.model)(batch)[:, : V - 2].log_softmax(-1)
    for kind in ("dense", "hidden", "topk"):
        c = write(train, folder / kind, teacher, kind=kind, vocab=V - 2, k=V)
        targets = everything(c)
        if kind == "topk":
            assert targets.token_ids.max() < V - 2
            got = targets.logprobs.gather(1, targets.token_ids.argsort(1))
        else:
            got = targets.float().log_softmax(-1)
        torch.testing.assert_close(got, expected, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("kind", ["topk", "sampled", "hidden", "dense"])
def test_the_batches_of_writing_change_nothing(train, folder, kind):
    """One row at a time or all at once, and in another order."""
    one = write(train, folder / "one", kind=kind, batch_size=1)
    all_ = write(train, folder / "all", rows=ROWS[::-1], kind=kind, batch_size=60)
    a, b = (train.cache_codec.probabilities(everything(c), V) for c in (one, all_))
    torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-5)


def test_fit_learns_the_same_from_a_cache_as_from_the_teacher(train, folder):
    teacher = chat()
    runs = {}
    for name in ("live", "hidden", "dense", "topk"):
        signal = teacher.model
        if name != "live":
            signal = write(train, folder / name, teacher, kind=name, k=V)
        student = llama(0)
        settings = QUICK | {"steps": 10, "temperature": 1.0, "soft_weight": 0.8}
        train.fit(student, ROWS, teacher=signal, **settings)
        runs[name] = weights(student)
    for name, value in runs["live"].items():
        torch.testing.assert_close(runs["hidden"][name], value, atol=1e-6, rtol=1e-5)
        for kind in ("dense", "topk"):
            torch.testing.assert_close(runs[kind][name], value, atol=2e-3, rtol=2e-3)


# ---------------------------------------------------------------- the right row


def test_bug_21_cached_rows_cannot_land_on_another_example(train, folder):
    """Other orders, paddings and batches than those of writing; rows of one length."""
    torch.manual_seed(0)
    rows = ROWS + [
        {"input_ids": ids, "labels": [-100, -100, *ids[2:]]}
        for ids in torch.randint(1, V, (40, 6)).tolist()
    ]
    # The same ids may stand there twice, each with labels of its own.
    rows.append({"input_ids": ROWS[3]["input_ids"], "labels": ROWS[3]["input_ids"]})
    teacher = chat()
    for kind in train.cache_recorder.KINDS:
        settings = {"kind": kind, "samples": 2000, "shard_bytes": 5000}
        c = write(train, folder / kind, teacher, rows, **settings)
        assert len(c) == len(rows) and len(c.files) > 1
        for size in (1, 13, len(rows)):
            for chosen in torch.randperm(len(rows)).split(size)[:5]:
                batch = collate([rows[i] for i in chosen], pad_token_id=V - 1)
                logprobs = live(teacher.model, batch)
                targets = c(batch)
                if kind == "topk":
                    known = logprobs.gather(1, targets.token_ids)
                    torch.testing.assert_close(
                        targets.logprobs, known, rtol=1e-2, atol=1e-2
                    )
                else:
                    limit = 0.2 if kind == "sampled" else 0.01
                    got = train.cache_codec.probabilities(targets, V)
                    assert (got - logprobs.exp()).abs().sum(-1).max() < limit


def test_bug_21_rows_that_were_not_written_are_refused(train, folder):
    c = write(train, folder)
    row = ROWS[0]
    ids, labels = row["input_ids"], row["labels"]
    changed = [ids[0] % (V - 2) + 1, *ids[1:]]
    for other in (changed, ids[1:], [*ids, 1]):
        new = {"input_ids": other, "labels": [-100] * (len(other) - 1) + other[-1:]}
        with pytest.raises(train.CacheError, match="row 1 of the batch is not in it"):
            c(collate([ROWS[1], new], 0))
    fewer = {"input_ids": ids, "labels": [-100] * (len(ids) - 1) + labels[-1:]}
    more = {"input_ids": ids, "labels": ids}
    for labelled in (more, fewer) if labels.count(-100) < len(ids) - 1 else (more,):
        with pytest.raises(train.CacheError, match="not in it with these labels"):
            c(collate([labelled], 0))


def test_a_row_without_labels_holds_nothing(train, folder):
    rows = [*ROWS[:3], {"input_ids": [1, 2, 3], "labels": [-100] * 3}]
    c = write(train, folder, rows=rows)
    assert len(c) == 4
    batch = collate(rows, 0)
    assert len(c(batch).token_ids) == len(live(chat().model, batch))
    assert c(collate(rows[3:], 0)).token_ids.shape == (0, 5)


# ---------------------------------------------------------------- writing


def counted(teacher: ChatModel) -> list[int]:
    """Rows of each forward pass, to be filled while the teacher runs."""
    seen = []
    teacher.model.model.embed_tokens.register_forward_hook(
        lambda module, inputs, output: seen.append(len(inputs[0]))
    )
    return seen


def test_bug_19_the_teacher_runs_once_for_each_row(train, folder):
    """trl#5726. Also where rows occur twice; never while the student learns."""
    teacher = chat()
    seen = counted(teacher)
    c = write(train, folder, teacher, ROWS + ROWS[:20])
    assert sum(seen) == len(ROWS) == len(c)
    write(train, folder, teacher, ROWS)
    c = write(train, folder, teacher, iter(ROWS + make_rows(5, seed=9)))
    assert sum(seen) == len(ROWS) + 5 == len(c)
    train.fit(llama(), ROWS, teacher=c, **QUICK | {"temperature": 1.0})
    assert sum(seen) == len(ROWS) + 5


def test_a_killed_run_goes_on_and_ends_the_same(train, folder, monkeypatch):
    """Killed in a batch, between a shard and its manifest, and while a file is made."""
    whole = write(train, folder / "whole", shard_bytes=300)
    assert len(whole.files) > 5
    teacher = chat()
    seen = counted(teacher)

    def die(*_, **__):
        raise KeyboardInterrupt

    def killed_at(module, name: str, call: int) -> None:
        real, calls = getattr(module, name), []

        def sometimes(*arguments):
            calls.append(1)
            return (die if len(calls) == call else real)(*arguments)

        with monkeypatch.context() as patch:
            patch.setattr(module, name, sometimes)
            with pytest.raises(KeyboardInterrupt):
                write(train, folder / "part", teacher, shard_bytes=300)

    killed_at(train.cache, "concatenate", 2)  # a shard is recorded, not yet written
    killed_at(train.cache, "write_json", 2)  # it is written, not yet in the manifest
    killed_at(train.cache_files, "save_file", 2)
    kept = len(train.open_cache(folder / "part"))
    assert 0 < kept < len(ROWS)
    (folder / "part" / "shard-00099.safetensors.part").write_bytes(b"half a file")
    seen.clear()
    c = write(train, folder / "part", teacher, shard_bytes=300)
    assert len(c) == len(ROWS) and sum(seen) == len(ROWS) - kept
    assert c.tokens == whole.tokens
    for a, b in zip(everything(c)[:2], everything(whole)[:2], strict=True):
        torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-3)


def test_memory_holds_a_shard_whatever_the_rows(train, folder, monkeypatch):
    """Rows are drawn from a stream, not faster than shards are written."""
    drawn, sizes, backlog = [0], [], []

    def stream(n):
        for row in make_rows(n):
            drawn[0] += 1
            yield row

    def spy(tensors, path):
        sizes.append(sum(x.numel() * x.element_size() for x in tensors.values()))
        backlog.append(drawn[0] - sum(written))
        written.append(len(tensors["keys"]))
        save_file(tensors, path)

    monkeypatch.setattr(train.cache_files, "save_file", spy)
    largest = {}
    for n in (100, 400):
        drawn[0], sizes[:], backlog[:], written = 0, [], [], []
        c = write(train, folder / str(n), rows=stream(n), shard_bytes=1000)
        assert len(c) > 0.9 * n
        largest[n] = max(sizes), max(backlog)
    assert largest[400][0] < 1.3 * largest[100][0] and largest[400][0] < 4000
    assert largest[400][1] < 2 * largest[100][1] + 10


@pytest.mark.skipif(not Path("/proc/self/maps").exists(), reason="needs Linux's /proc")
def test_shards_are_mapped_not_loaded(train, folder):
    c = write(train, folder, kind="dense")
    (shard,) = c._shards.values()
    mapped = Path("/proc/self/maps").read_text()
    assert "shard-00000.safetensors" in mapped
    low, high = (
        int(x, 16)
        for line in mapped.splitlines()
        if str(folder) in line
        for x in line.split()[0].split("-")
    )
    assert low <= shard["logprobs"].data_ptr() < high


def test_settings_that_make_no_sense_are_refused(train, folder):
    for settings, match in (
        ({"kind": "all"}, "choose one of topk"),
        ({"k": 0}, "k >= 1"),
        ({"kind": "sampled", "samples": 0}, "samples >= 1"),
        ({"temperature": 0.0}, "temperature > 0"),
        ({"kind": "dense", "temperature": 2.0}, "serves every temperature"),
    ):
        with pytest.raises(ValueError, match=match):
            write(train, folder, **settings)
    with pytest.raises(train.CacheError, match="write one with write_cache"):
        train.open_cache(folder)
    broken = chat()
    with torch.no_grad():
        broken.model.lm_head.weight.fill_(torch.nan)
    with pytest.raises(FloatingPointError, match="float32 or bfloat16"):
        write(train, folder, broken)


def test_another_temperature_than_that_of_writing_is_refused(train, folder):
    """FACTS: one T must not stand for two things."""
    c = write(train, folder, temperature=2.0)
    train.fit(llama(), ROWS, teacher=c, **QUICK | {"temperature": 2.0})
    with pytest.raises(ValueError, match="softened by temperature 2.0"):
        train.fit(llama(), ROWS, teacher=c, **QUICK | {"temperature": 1.0})


# ---------------------------------------------------------------- damage


@pytest.mark.parametrize("kind, shard_bytes", [("topk", 700), ("hidden", 3000)])
def test_a_flipped_byte_anywhere_is_named_and_mended(train, folder, kind, shard_bytes):
    write(train, folder, kind=kind, shard_bytes=shard_bytes)
    names = sorted(path.name for path in folder.glob("*.safetensors"))
    assert len(names) > 3
    for name in names:
        path = folder / name
        good = path.read_bytes()
        for place in (3, 40, len(good) // 2, len(good) - 1):
            bad = bytearray(good)
            bad[place] ^= 1
            path.write_bytes(bad)
            with pytest.raises(train.CacheError, match=f"{name}: .*write_cache again"):
                everything(train.open_cache(folder))
            with pytest.raises(train.CacheError, match=name):
                train.verify_cache(folder, chat(), ROWS)
        with pytest.warns(UserWarning, match=name):
            write(train, folder, kind=kind)
        assert train.verify_cache(folder, chat(), ROWS, n=60) == {}


def test_missing_and_cut_files_are_named_and_mended(train, folder):
    write(train, folder, shard_bytes=1500)
    path = folder / "shard-00001.safetensors"
    good = path.read_bytes()
    for change, match in (
        (path.unlink, "shard-00001.safetensors: it is missing"),
        (lambda: path.write_bytes(good[:-5]), "bytes in place of"),
        (lambda: path.write_bytes(b""), "bytes in place of"),
    ):
        change()
        with pytest.raises(train.CacheError, match=match):
            train.open_cache(folder)
        with pytest.warns(UserWarning, match=match):
            c = write(train, folder)
        assert len(c) == len(ROWS)
        path.write_bytes(good)
    (folder / "manifest.json").write_text('{"settings": ')
    with pytest.raises(train.CacheError, match="manifest.json is damaged"):
        train.open_cache(folder)


def test_bug_12_another_tokenizer_of_equal_size_is_refused(train, folder):
    """unsloth-zoo#965. Words beyond the shared ids may differ."""
    write(train, folder, chat(size=V), vocab=V - 2)
    train.open_cache(folder, tokenizer=Words())
    train.open_cache(folder, tokenizer=Words(size=V + 7))
    with pytest.raises(train.CacheError, match="another tokenizer"):
        train.open_cache(folder, tokenizer=Words(first="null"))
    with pytest.raises(train.CacheError, match="tokenizer"):
        write(train, folder, chat(first="null"), vocab=V - 2)


def test_another_model_or_kind_is_refused(train, folder):
    write(train, folder)
    tuned = copy.deepcopy(chat().model)
    with torch.no_grad():
        tuned.model.layers[0].mlp.up_proj.weight *= 1.01
    for model in (llama(2), gpt2(), tuned, chat().model.bfloat16()):
        with pytest.raises(train.CacheError, match="other weights"):
            train.open_cache(folder, teacher=chat(model))
        with pytest.raises(train.CacheError, match="weights"):
            write(train, folder, chat(model))
        with pytest.raises(train.CacheError, match="other weights"):
            train.verify_cache(folder, chat(model), ROWS)
    for settings in ({"kind": "dense"}, {"k": 6}, {"temperature": 2.0}, {"vocab": 19}):
        with pytest.raises(train.CacheError, match="choose another folder"):
            write(train, folder, **settings)
    assert len(write(train, folder, samples=99)) == len(ROWS)  # no matter for topk
    train.open_cache(folder, teacher=chat())


@pytest.mark.parametrize("kind", ["topk", "sampled", "hidden", "dense"])
def test_verify_finds_the_rows_that_differ(train, folder, kind):
    """Two rows exchange their signals, behind a checksum that was put right."""
    rows = [row for row in ROWS if row["labels"].count(-100) == len(row["labels"]) - 2]
    assert len(rows) > 8
    c = write(train, folder, rows=rows, kind=kind, samples=50)
    assert train.verify_cache(folder, chat(), rows, batch_size=4) == {}
    assert train.verify_cache(folder, chat(), rows[::-1], batch_size=1) == {}
    path = folder / "shard-00000.safetensors"
    tensors = load_file(path)
    keys = [key.numpy().tobytes() for key in tensors["keys"]]
    swapped = [keys.index(train.cache_recorder.item_of(rows[i]).key) for i in (2, 5)]
    first, second = (tensors["offsets"][i].item() for i in swapped)
    for name, values in tensors.items():
        if name not in ("keys", "offsets"):
            values[[first, first + 1, second, second + 1]] = values[
                [second, second + 1, first, first + 1]
            ]
    del c
    manifest = json.loads((folder / "manifest.json").read_text())
    manifest["files"][path.name] |= train.cache_files.save(path, tensors)
    data.write_json(folder / "manifest.json", manifest)
    differing = train.verify_cache(folder, chat(), rows, n=len(rows))
    assert set(differing) == {2, 5} and all(0.02 < d <= 1 for d in differing.values())
    assert train.verify_cache(folder, chat(), rows[:2]) == {}
    with pytest.raises(train.CacheError, match="not in it"):
        train.verify_cache(folder, chat(), make_rows(3, seed=5))


# ---------------------------------------------------------------- size and speed


@pytest.mark.slow
def test_bytes_a_token_at_152k_words(train, folder):
    """At most 400 for the 64 likeliest and 40 for 12 samples, all counted."""
    vocab = 151_936
    torch.manual_seed(0)
    model = LlamaForCausalLM(
        LlamaConfig(
            vocab_size=vocab,
            hidden_size=8,
            intermediate_size=8,
            num_hidden_layers=1,
            num_attention_heads=1,
            num_key_value_heads=1,
            initializer_range=1.0,
            tie_word_embeddings=True,
        )
    )
    teacher = chat(model, size=vocab)
    ids = torch.randint(0, vocab, (8, 40)).tolist()
    rows = [{"input_ids": x, "labels": [-100] * 10 + x[10:]} for x in ids]
    batch = collate(rows, 0)
    expected = live(model, batch)
    sizes = {}
    for kind, limit in (("topk", 400), ("sampled", 40)):
        c = write(train, folder / kind, teacher, rows, kind=kind, k=64)
        on_disk = sum(path.stat().st_size for path in (folder / kind).iterdir())
        sizes[kind] = on_disk / c.tokens
        assert c.tokens == 8 * 30 and c.bytes_per_token <= sizes[kind] <= limit, kind
        known = expected.gather(1, c(batch).token_ids)
        assert (known > known.new_tensor(1e-12).log()).all()
        if kind == "topk":
            assert c(batch).token_ids.max() > 2**16  # which two bytes could not hold
            torch.testing.assert_close(c(batch).logprobs, known, rtol=2e-3, atol=2e-3)
    assert sizes["topk"] < 340


@pytest.mark.slow
def test_reading_costs_little_beside_the_teacher(train, folder, teacher, tokenizer):
    """On the shipped pair, batches of 32: reading measured 60 to 150 times faster."""
    rows = data.encode_chat(
        [example.row() for example in world.examples("train", 32)], tokenizer
    )
    batch = collate(list(rows), 0)
    signals = {"live": train.LiveTeacher(teacher.model)}
    for kind in ("topk", "dense"):
        signals[kind] = train.write_cache(
            teacher, rows, folder / kind, kind=kind, progress=False
        )
        assert train.verify_cache(folder / kind, teacher, rows, n=2) == {}
    seconds = {name: [] for name in signals}
    for _ in range(3):
        for name, signal in signals.items():
            start = time.perf_counter()
            signal(batch)
            seconds[name].append(time.perf_counter() - start)
    for kind in ("topk", "dense"):
        assert min(seconds["live"]) > 15 * min(seconds[kind])


def test_the_manifest_says_whose_signal_it_is(train, folder, teacher, tokenizer):
    rows = data.encode_chat(
        [example.row() for example in world.examples("train", 4)], tokenizer
    )
    c = train.write_cache(teacher, rows, folder, k=8, progress=False)
    text = (folder / "manifest.json").read_text()
    manifest = json.loads(text)
    assert manifest["teacher"] == "teacher" and "/" not in text  # no path of a machine
    settings = manifest["settings"]
    assert settings["kind"] == "topk" and settings["k"] == 8
    assert settings["vocab"] == 1024 and settings["temperature"] == 1
    assert len(settings["weights"]) == len(settings["tokenizer"]) == 32
    (shard,) = manifest["files"].values()
    assert shard["rows"] == 4 and shard["tokens"] == c.tokens
    assert 0.5 < shard["kept_mass"] <= 1


# ---------------------------------------------------------------- planted bugs


def planted(test, *more):
    """The test as `notices` calls it, with a folder of its own."""

    def run(module, folder, monkeypatch):
        names = test.__code__.co_varnames[: test.__code__.co_argcount]
        given = {"train": module, "folder": folder, "monkeypatch": monkeypatch}
        return test(*[given[name] for name in names if name in given], *more)

    return run


PLANTED = {
    "key without the ids": (
        'input_ids.numpy().astype("<i4").tobytes()',
        "bytes(len(input_ids))",
        planted(test_bug_21_cached_rows_cannot_land_on_another_example),
    ),
    "key without the labels": (
        "shift_and_mask(labels)[1].numpy().tobytes()",
        'b""',
        planted(test_bug_21_rows_that_were_not_written_are_refused),
    ),
    "key with the padding": (
        "row_key(ids[number][real], labels[number][real])",
        "row_key(ids[number], labels[number])",
        planted(test_bug_21_cached_rows_cannot_land_on_another_example),
    ),
    "rows in the order of writing": (
        'start, stop = shard["offsets"][place : place + 2].tolist()',
        'start, stop = shard["offsets"][number : number + 2].tolist()',
        planted(test_bug_21_cached_rows_cannot_land_on_another_example),
    ),
    "draws depend on the batch": (
        "torch.Generator().manual_seed(seed)\n    return",
        "torch.default_generator\n    return",
        planted(test_the_batches_of_writing_change_nothing, "sampled"),
    ),
    "draws from flattened probabilities": (
        "logprobs.exp().cumsum(-1)",
        "(logprobs / 2).exp().cumsum(-1)",
        planted(test_bug_16_samples_follow_the_teacher),
    ),
    "repeated draws counted once": (
        "torch.searchsorted(ids, ids, right=True) - torch.searchsorted(ids, ids)",
        "torch.ones_like(ids)",
        planted(test_samples_count_what_was_drawn),
    ),
    "mass of the tail not stored": (
        'torch.log1p(-stored["tail"].float().exp())[:, None]',
        '0 * stored["tail"].float()[:, None]',
        planted(test_topk_keeps_the_likeliest_and_the_mass_of_the_rest, 1.0),
    ),
    "mass of the tail from rounded numbers": (
        "logprobs.log_softmax(-1) + mass",
        "logprobs",
        planted(test_topk_of_a_sure_teacher_keeps_its_small_tail),
    ),
    "temperature not used": (
        '(logits / settings["temperature"])',
        "logits",
        planted(test_topk_keeps_the_likeliest_and_the_mass_of_the_rest, 2.0),
    ),
    "soft cap forgotten": (
        "logits if softcap is None else",
        "logits if True else",
        planted(test_hidden_states_replay_other_architectures, gemma3),
    ),
    "columns not sliced": (
        'LiveTeacher(model, settings["vocab"])',
        "LiveTeacher(model)",
        planted(test_columns_that_only_the_teacher_has_are_left_out),
    ),
    "rows written twice": (
        "        if item.key in done:\n            continue\n",
        "",
        planted(test_bug_19_the_teacher_runs_once_for_each_row),
    ),
    "manifest before its shard": (
        "        files[name] = save(folder / name, shard)\n",
        "        files[name] = {'bytes': 0, 'blake2b': ''}\n"
        "        write_json(folder / MANIFEST, manifest)\n"
        "        files[name] = save(folder / name, shard)\n",
        planted(test_a_killed_run_goes_on_and_ends_the_same),
    ),
    "all rows in one shard": (
        "if size >= tokens:",
        "if False:",
        planted(test_memory_holds_a_shard_whatever_the_rows),
    ),
    "checksum not compared": (
        'if digest(path) != entry["blake2b"]:',
        "if False:",
        planted(test_a_flipped_byte_anywhere_is_named_and_mended, "topk", 700),
    ),
    "tokenizer not compared": (
        'if tokenizer_hash(tokenizer, settings["vocab"]) != settings["tokenizer"]:',
        "if False:",
        planted(test_bug_12_another_tokenizer_of_equal_size_is_refused),
    ),
    "weights not compared": (
        'if weights_hash(teacher.model) != settings["weights"]:',
        "if False:",
        planted(test_another_model_or_kind_is_refused),
    ),
    "two bytes for every id": (
        "((vocab - 1).bit_length() + 7) // 8",
        "2",
        planted(test_ids_of_any_vocabulary_survive),
    ),
    "four bytes for a draw": (
        "((vocab - 1).bit_length() + 7) // 8",
        "4",
        planted(test_ids_of_any_vocabulary_survive),
    ),
    "verify compares the cache with itself": (
        "cache.targets(record(window))",
        "cache(batch)",
        planted(test_verify_finds_the_rows_that_differ, "topk"),
    ),
}


@pytest.mark.slow
@pytest.mark.parametrize("bug", PLANTED)
def test_a_copy_without_a_bug_passes(bug, folder, monkeypatch):
    _, _, test = PLANTED[bug]
    with damaged(helpers.train) as copy:
        test(copy, folder, monkeypatch)


@pytest.mark.parametrize("bug", PLANTED)
def test_a_planted_bug_is_noticed(bug, folder, monkeypatch):
    old, new, test = PLANTED[bug]
    with damaged(helpers.train, old, new) as copy:
        assert notices(lambda module: test(module, folder, monkeypatch), copy)
