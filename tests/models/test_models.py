"""Loading, shared vocabularies, chat templates, LoRA, QLoRA and merging."""

import copy
import dataclasses
import json
import shutil
import subprocess
import sys
import threading
import warnings
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from bitsandbytes.functional import dequantize_4bit
from huggingface_hub import constants
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer, decoders, pre_tokenizers, trainers
from tokenizers.models import BPE
from torch import nn
from transformers import (
    GPT2Config,
    GPT2LMHeadModel,
    LlamaForCausalLM,
    PreTrainedTokenizerFast,
)

from helpers import data, distill, evaluate, models, train, world
from helpers.models import (
    AdapterError,
    ChatModel,
    ModelError,
    TemplateMismatch,
    VocabularyMismatch,
    adapters,
    vocabulary,
)
from helpers.train import cache
from tests.damage import damage

ROOT = Path(__file__).resolve().parents[2]
NOTEBOOK = ROOT / "notebooks" / "06_lora.ipynb"
ENGLISH = ["The parcel is on its way to the customer.", "Is the lamp in stock?"]
GERMAN = ["Das Paket ist unterwegs zum Kunden.", "Gibt es die Lampe noch?"]


def rows(n):
    return SimpleNamespace(vocab_size=n)


def byte_pairs(text, size=300, special=(), **named) -> PreTrainedTokenizerFast:
    """A tokenizer of the kind that GPT-2, Qwen, Llama and Phi have, of `text`."""
    inner = Tokenizer(BPE())
    inner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    inner.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=size,
        special_tokens=[*special, *named.values()],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    inner.train_from_iterator(text * 4, trainer)
    return PreTrainedTokenizerFast(tokenizer_object=inner, **named)


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


# ---------------------------------------------------------------- pairs that do not fit


def phi_4():
    return byte_pairs(ENGLISH, 290, eos_token="<|im_end|>")


def phi_4_mini():
    return byte_pairs(GERMAN, 300, eos_token="<|end|>")


@pytest.mark.parametrize(
    "teacher, teacher_rows, student_rows",
    [
        (phi_4, 100_352, 200_064),
        (lambda: byte_pairs(ENGLISH, 310, eos_token="<eos>"), 129_280, 200_064),
        (lambda: byte_pairs(ENGLISH, 300, eos_token="<|end|>"), 200_064, 200_064),
    ],
    ids=["Phi-4", "DeepSeek-V3", "equal width, another tokenizer"],
)
def test_bad_teachers_for_phi_4_mini_are_refused(teacher, teacher_rows, student_rows):
    student, teacher = phi_4_mini(), teacher()
    with pytest.raises(VocabularyMismatch) as error:
        models.shared_vocab(student, teacher, rows(student_rows), rows(teacher_rows))
    said = str(error.value)
    by_id = [{i: w for w, i in t.get_vocab().items()} for t in (student, teacher)]
    first = next(i for i, word in sorted(by_id[0].items()) if by_id[1][i] != word)
    assert f"the first is id {first}: student {by_id[0][first]!r}, teacher " in said
    assert f"The student knows 300 tokens, the teacher {len(teacher)}" in said
    assert "distil from the teacher's text: generate_answers" in said


def test_ids_with_holes_are_compared_up_to_the_last():
    """Phi-4-mini leaves ids out before its markers: their number is not their end."""
    tokenizer = byte_pairs(ENGLISH, 290, eos_token="<eos>")
    holes = {word: i + 100 * (i > 280) for word, i in tokenizer.get_vocab().items()}
    tokenizer.get_vocab = lambda: holes
    assert models.shared_vocab(tokenizer, tokenizer, rows(448), rows(512)) == 448
    other = copy.deepcopy(tokenizer)
    other.get_vocab = lambda: holes | {"?other": 385}
    with pytest.raises(VocabularyMismatch, match="1 of 390 ids differ.*id 385"):
        models.shared_vocab(tokenizer, other, rows(448), rows(448))


def test_a_marker_beyond_the_rows_is_no_mismatch(tokenizer):
    """Gemma 3 1B has a marker for images, and no row for it."""
    gemma = copy.deepcopy(tokenizer)
    gemma.add_special_tokens({"additional_special_tokens": ["<image>"]})
    n = len(tokenizer)
    assert models.shared_vocab(gemma, gemma, rows(n), rows(n + 64)) == n


def test_rows_of_a_model_that_sees_images_are_those_of_its_text(tokenizer):
    n = len(tokenizer)
    whole = SimpleNamespace(get_text_config=lambda: rows(n + 8))
    assert models.shared_vocab(tokenizer, tokenizer, rows(n + 64), whole) == n + 8


# ---------------------------------------------------------------- chat templates

CHATML = (
    "{% for m in messages %}<|{{ m['role'] }}|>\n{{ m['content'] }}<|end|>\n"
    "{% endfor %}{% if add_generation_prompt %}<|assistant|>\n{% endif %}"
)


def refuses(check) -> bool:
    """Whether a teacher with another template than the student's is refused."""
    student, teacher = phi_4_mini(), phi_4_mini()
    student.chat_template = CHATML
    teacher.chat_template = CHATML.replace("<|end|>\n", "<|end|>")
    try:
        check(student, teacher)
    except TemplateMismatch as error:
        assert "the chat templates differ: after" in str(error)
        assert "goes on with " + repr("\n<|assistant|>\nYes.<") in str(error)
        assert "student.tokenizer.chat_template = teacher.token" in str(error)
        return True
    return False


def test_bug_14_another_chat_template_is_shown_with_the_first_difference():
    assert refuses(models.check_templates)
    one_of_them = "both = student_tokenizer, student_tokenizer"
    planted = damage(
        vocabulary,
        "both = student_tokenizer, teacher_tokenizer",
        one_of_them,
    )
    assert not refuses(planted.check_templates)


def test_templates_are_compared_by_what_they_render():
    student, teacher = phi_4_mini(), phi_4_mini()
    teacher.chat_template = CHATML
    student.chat_template = CHATML.replace("{% if add", "{#- a remark -#}{% if add")
    models.check_templates(student, teacher)
    with pytest.raises(data.DataError, match="no chat template"):
        models.check_templates(student, phi_4())


def test_one_text_cut_into_other_ids_is_refused():
    student, teacher = phi_4_mini(), phi_4_mini()
    student.chat_template = teacher.chat_template = CHATML
    teacher.add_tokens(["stock"])
    with pytest.raises(TemplateMismatch, match="one text, but other input_ids"):
        models.check_templates(student, teacher)


def test_a_pair_is_checked_as_a_whole(student, teacher, tokenizer):
    assert models.check_pair(student, teacher) == len(tokenizer)
    other = copy.deepcopy(tokenizer)
    other.chat_template = other.chat_template.replace("<|end|>", "<|end|> ")
    with pytest.raises(TemplateMismatch):
        models.check_pair(student, ChatModel(teacher.model, other))


def test_distil_compares_a_teacher_that_brings_its_tokenizer(
    small_model, tokenizer, track
):
    other = copy.deepcopy(tokenizer)
    other.chat_template = CHATML
    base = ChatModel(small_model, tokenizer)
    with pytest.raises(TemplateMismatch):
        chat = [e.row() for e in world.examples("train", 2)]
        distill.distil(base, chat, track, teacher=ChatModel(small_model, other))


def test_a_cache_written_under_another_template_is_refused(
    small_model, tokenizer, tmp_path
):
    teacher = ChatModel(small_model, copy.deepcopy(tokenizer))
    teacher.tokenizer.chat_template = CHATML
    encoded = data.encode_chat([world.examples("train", 1)[0].row()], tokenizer)
    cache.write_cache(teacher, encoded, tmp_path, progress=False)
    cache.open_cache(tmp_path, tokenizer=teacher.tokenizer)
    with pytest.raises(cache.CacheError, match="another chat template"):
        cache.open_cache(tmp_path, tokenizer=tokenizer)


# ---------------------------------------------------------------- loading


@pytest.fixture
def folder(track, tmp_path):
    """A copy of the student that a test may damage."""
    return shutil.copytree(track.student, tmp_path / "model")


@pytest.fixture
def hub(tmp_path, monkeypatch):
    """An empty cache of the hub, which cannot be reached."""
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    return tmp_path / "hub"


def cached(hub, folder, name="some-one/a-model") -> Path:
    """Put a folder into the cache as a download would; returns the snapshot."""
    repository = hub / f"models--{name.replace('/', '--')}"
    commit = "0123456789abcdef0123456789abcdef01234567"
    (repository / "refs").mkdir(parents=True)
    (repository / "refs" / "main").write_text(commit)
    return shutil.copytree(folder, repository / "snapshots" / commit)


def test_a_folder_and_a_name_on_the_hub_give_the_same_model(student, folder, hub):
    ids = torch.arange(40)[None]
    expected = student.model(ids).logits
    cached(hub, folder)
    for name in (folder, str(folder), "some-one/a-model"):
        loaded = models.load(name, device="cpu")
        assert torch.equal(loaded.model(ids).logits, expected)
        assert loaded.tokenizer.get_vocab() == student.tokenizer.get_vocab()
        assert not loaded.model.training and loaded.model.dtype == torch.float32


def test_a_track_loads_names_from_the_hub(track, folder, hub):
    cached(hub, folder)
    named = dataclasses.replace(track, teacher="some-one/a-model")
    teacher = models.load_teacher(named)
    assert not any(p.requires_grad for p in teacher.model.parameters())


def test_the_data_type_follows_the_device_unless_it_is_given(folder):
    half = models.load(folder, device="cpu", dtype=torch.bfloat16)
    assert half.model.dtype == torch.bfloat16


def test_weights_in_several_files_are_loaded_and_a_missing_one_is_named(
    student, folder
):
    shutil.rmtree(folder)
    student.model.save_pretrained(folder, max_shard_size="200KB")
    student.tokenizer.save_pretrained(folder)
    shards = sorted(folder.glob("*.safetensors"))
    assert len(shards) > 1
    models.load(folder, device="cpu")
    shards[1].unlink()
    with pytest.raises(ModelError, match=f"{shards[1].name} is missing or damaged"):
        models.load(folder, device="cpu")


def cut(folder):
    whole = (folder / "model.safetensors").read_bytes()
    (folder / "model.safetensors").write_bytes(whole[: len(whole) // 2])


def only_pickle(folder):
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")


def without(name):
    return lambda folder: (folder / name).unlink()


def config_with(**changes):
    def change(folder):
        path = folder / "config.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | changes))

    return change


def no_tokenizer(folder):
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (folder / name).unlink()


def only_adapter(folder):
    (folder / "config.json").rename(folder / "adapter_config.json")


REMOTE = {"AutoConfig": "c.C", "AutoModelForCausalLM": "m.M"}
DEFECTS = {
    "cut off": (cut, "model.safetensors is missing or damaged .*: fetch it again"),
    "only pickle": (only_pickle, "only pytorch_model.bin, a pickle, which can run any"),
    "no weights": (
        without("model.safetensors"),
        "no weights as safetensors: fetch it whole",
    ),
    "no config": (without("config.json"), "no config.json: name the folder that save"),
    "an adapter": (only_adapter, "it holds an adapter: load its base"),
    "no tokenizer": (no_tokenizer, "tokenizer"),
    "config cut off": (lambda f: (f / "config.json").write_text("{"), "config file"),
    "foreign code": (
        config_with(model_type="other", auto_map=REMOTE),
        "program code from the hub, which is never run here",
    ),
    "unknown kind": (config_with(model_type="other"), "model type `other`"),
    "more layers": (config_with(num_hidden_layers=4), "lack 9 of the model's weights"),
    "other width": (config_with(hidden_size=32), "."),
}


@pytest.mark.parametrize("defect, cure", DEFECTS.values(), ids=DEFECTS)
def test_a_folder_that_cannot_be_loaded_says_what_to_do(folder, defect, cure):
    defect(folder)
    with pytest.raises(ModelError, match=cure) as error:
        models.load(folder, device="cpu")
    assert "\n" not in str(error.value) and str(folder) in str(error.value)


@pytest.mark.parametrize(
    "defect", ["cut off", "only pickle", "no weights", "more layers"]
)
def test_a_download_that_cannot_be_loaded_says_what_to_do(folder, hub, defect):
    damage_it, cure = DEFECTS[defect]
    damage_it(cached(hub, folder))
    with pytest.raises(ModelError, match=cure) as error:
        models.load("some-one/a-model", device="cpu")
    assert "\n" not in str(error.value)


def test_without_network_and_download_one_line_says_what_to_do(hub):
    name = "no-one/nothing"
    with pytest.raises(ModelError) as error:
        models.load(name, device="cpu")
    assert str(error.value) == (
        f"{name}: not on this computer, or not all of it, and the hub is switched off "
        f"(HF_HUB_OFFLINE). Where there is a network, run `hf download {name}` once; "
        "or take the track tiny, which needs none"
    )


@pytest.mark.parametrize("name", ["Qwen 3", "weights/studnet/x", "owner/name "])
def test_what_is_no_name_at_all_is_refused(hub, name):
    with pytest.raises(ModelError, match="neither a folder here nor a name on the hub"):
        models.load(name, device="cpu")


@pytest.mark.parametrize(
    "status, code, cure",
    [
        (403, "GatedRepo", "gated. Accept its licence"),
        (401, "RepoNotFound", "no such model on the hub. Check the spelling"),
        (404, "RepoNotFound", "no such model on the hub. Check the spelling"),
    ],
)
def test_what_the_hub_refuses_is_told_in_one_line(hub, monkeypatch, status, code, cure):
    class Refuses(BaseHTTPRequestHandler):
        def do_HEAD(self):
            self.send_response(status)
            self.send_header("X-Error-Code", code)
            self.send_header("Content-Length", "0")
            self.end_headers()

        do_GET = do_HEAD

        def log_message(self, *_):
            pass

    with HTTPServer(("127.0.0.1", 0), Refuses) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        here = f"http://127.0.0.1:{server.server_port}"
        path = "/{repo_id}/resolve/{revision}/{filename}"
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
        monkeypatch.setattr(constants, "ENDPOINT", here)
        monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", here + path)
        with pytest.raises(ModelError, match=cure) as error:
            models.load("some-one/private", device="cpu")
        server.shutdown()
    assert "\n" not in str(error.value)


# ---------------------------------------------------------------- tokenizers made ready


def save_small(folder, tokenizer, **settings) -> Path:
    """A GPT-2 of one layer over a tokenizer, as a folder."""
    shape = {"n_embd": 16, "n_layer": 1, "n_head": 2, "n_positions": 64}
    config = GPT2Config(vocab_size=len(tokenizer) + 6, **shape, **settings)
    GPT2LMHeadModel(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def test_a_model_without_template_and_padding_gets_both(tmp_path):
    """As GPT-2 comes: one marker, which has to begin, to end and to pad."""
    bare = byte_pairs(ENGLISH, bos_token="<|eot|>", eos_token="<|eot|>")
    with pytest.warns(UserWarning, match="no chat template and got a plain one"):
        loaded = models.load(save_small(tmp_path, bare), device="cpu")
    tokenizer = loaded.tokenizer
    turns = [
        {"role": "user", "content": "In stock?"},
        {"role": "assistant", "content": "Yes."},
    ]
    prompt = data.render_prompt(tokenizer, turns[:1])
    assert prompt == "<|eot|>User: In stock?\nAssistant: "
    assert tokenizer.pad_token == tokenizer.eos_token
    row = data.tokenize_chat(tokenizer, turns)
    kept = [i for i in row["labels"] if i != data.IGNORE_INDEX]
    assert tokenizer.decode(kept) == "Yes.<|eot|>"
    batch = data.collate([row, data.tokenize_chat(tokenizer, turns * 2)], kept[-1])
    assert (batch["labels"] == tokenizer.eos_token_id).sum() == 2, "padding is not kept"


def test_a_tokenizer_without_any_end_is_refused(tmp_path):
    with pytest.raises(ModelError, match="no end-of-text token"):
        models.load(save_small(tmp_path, byte_pairs(ENGLISH)), device="cpu")


GEMMA = (
    "{{ bos_token }}{% for m in messages %}<start_of_turn>{{ m['role'] }}\n"
    "{{ m['content'] }}<end_of_turn>\n{% endfor %}"
    "{% if add_generation_prompt %}<start_of_turn>assistant\n{% endif %}"
)


def test_an_answer_ends_where_its_template_ends_it(tmp_path):
    """Gemma closes a turn with one token and a text with another."""
    names = {"pad_token": "<pad>", "eos_token": "<eos>", "bos_token": "<bos>"}
    special = ["<start_of_turn>", "<end_of_turn>"]
    gemma = byte_pairs(ENGLISH, special=special, **names)
    gemma.add_special_tokens({"additional_special_tokens": special})
    gemma.chat_template = GEMMA
    ends = gemma.convert_tokens_to_ids(["<eos>", "<end_of_turn>"])
    folder = save_small(tmp_path, gemma, eos_token_id=ends)
    loaded = models.load(folder, device="cpu")
    assert loaded.tokenizer.eos_token == "<end_of_turn>"
    assert loaded.tokenizer.pad_token == "<pad>"
    assert models.end_tokens(*loaded) == sorted(ends)
    turns = [{"role": "user", "content": "?"}, {"role": "assistant", "content": "Yes."}]
    labels = data.tokenize_chat(loaded.tokenizer, turns)["labels"]
    kept = [i for i in labels if i != data.IGNORE_INDEX]
    assert loaded.tokenizer.decode(kept) == "Yes.<end_of_turn>"


THINKS = (
    "{%- if not date_string is defined %}{%- set date_string = strftime_now('%d %b %Y')"
    " %}{%- endif %}Today: {{ date_string }}\n"
    + CHATML.replace(
        "{% endif %}",
        "{% if enable_thinking is defined and enable_thinking is false %}<think>\n\n"
        "</think>\n\n{% endif %}{% endif %}",
    )
)


def test_a_template_says_the_same_tomorrow_and_asks_for_no_thinking(tmp_path):
    """As those of Llama 3.2, which print the date, and of Qwen 3."""
    tokenizer = phi_4_mini()
    tokenizer.chat_template = THINKS
    loaded = models.load(save_small(tmp_path, tokenizer), device="cpu")
    prompt = data.render_prompt(loaded.tokenizer, [{"role": "user", "content": "?"}])
    assert prompt == (
        "Today: 26 Jul 2024\n<|user|>\n?<|end|>\n<|assistant|>\n<think>\n\n</think>\n\n"
    )
    asked = loaded.tokenizer.apply_chat_template(
        [{"role": "user", "content": "?"}],
        tokenize=False,
        add_generation_prompt=True,
        enable_thinking=True,
    )
    assert asked.endswith("<|assistant|>\n"), "who wants thoughts can ask for them"


def test_the_course_tokenizer_is_left_as_it_is(student, track):
    template = Path(track.student, "chat_template.jinja").read_text()
    assert student.tokenizer.chat_template == template
    assert models.end_tokens(*student) == [student.tokenizer.eos_token_id]


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


def test_a_wrong_merge_is_refused_in_half_precision_and_a_right_one_is_not(
    student, encoded
):
    """There rounding moves logits, but not as far as a factor that was forgotten."""
    base = copy.deepcopy(student.model).to(torch.bfloat16)
    lora = trained(base, encoded)
    own = [p.dtype for n, p in lora.named_parameters() if "lora_" in n]
    assert set(own) == {torch.float32}, "what is trained is not in half precision"
    models.merge(lora, rows=encoded)
    plan = "merged = copy.deepcopy(model).merge_and_unload().eval()"
    wrong = plan.replace("deepcopy(model)", "deepcopy(halved(model))")
    planted = damage(adapters, plan, wrong)
    planted.halved = halved
    with pytest.raises(ValueError, match="merging changed the logits"):
        planted.merge(lora, rows=encoded)


def halved(lora):
    """As if alpha / rank had been half as large."""
    lora = copy.deepcopy(lora)
    for module in lora.modules():
        if isinstance(getattr(module, "scaling", None), dict):
            module.scaling = {name: s / 2 for name, s in module.scaling.items()}
    return lora


def test_a_merge_is_checked_on_the_rows_that_are_given(student, encoded):
    """A wrong merge of one token's embedding shows only where that token occurs."""
    lora = wake(models.add_lora(student.model, rank=4))
    seen = set(encoded[0]["input_ids"])
    unseen = next(i for i in range(64) if i not in seen)
    plan = "merged = copy.deepcopy(model).merge_and_unload().eval()"
    wrong = f"{plan}; merged.get_input_embeddings().weight[{unseen}] += 1"
    # Tied, the row is also one of the output: only its column of logits changes.
    wrong += "; merged.lm_head = copy.deepcopy(model.base_model.model.lm_head)"
    planted = damage(adapters, plan, wrong)
    planted.merge(lora, rows=[encoded[0]])
    with pytest.raises(ValueError, match="merging changed the logits"):
        planted.merge(lora, rows=[{"input_ids": [unseen, *encoded[0]["input_ids"]]}])


def test_lora_shares_the_frozen_weights_and_copies_nothing(student):
    lora = models.add_lora(student.model, rank=4)
    own = {p.data_ptr() for p in student.model.parameters()}
    frozen = [p for n, p in lora.named_parameters() if "lora_" not in n]
    assert frozen and all(p.data_ptr() in own for p in frozen)
    assert all(p.requires_grad for p in student.model.parameters())
    merged = models.merge(lora)
    assert not own & {p.data_ptr() for p in merged.parameters()}


def test_a_student_whose_merge_is_refused_keeps_its_adapter(
    small_model, tokenizer, track, monkeypatch
):
    def refuse(model):
        raise ValueError("merging changed the logits")

    monkeypatch.setattr(models, "merge", refuse)
    chat = [e.row() for e in world.examples("train", 4)]
    base = ChatModel(small_model, tokenizer)
    with pytest.warns(UserWarning, match="keeps its adapter: merging changed"):
        taught, *_ = distill.distil(base, chat, track, steps=1, progress=False)
    assert any("lora_" in name for name, _ in taught.model.named_parameters())


@pytest.fixture(scope="module")
def encoded(student):
    chat = [e.row() for e in world.examples("train", 64)]
    return data.encode_chat(chat, student.tokenizer)


def trained(base, encoded, steps=5, **settings):
    lora = models.add_lora(base, rank=4, **settings)
    how = {"batch_size": 8, "learning_rate": 1e-2, "progress": False}
    train.fit(lora, encoded, steps=steps, **how)
    return lora


def own_lora():
    """The class `LowRank` of the notebook on LoRA, as a learner reads it there."""
    cells = json.loads(NOTEBOOK.read_text(encoding="utf-8"))["cells"]
    source = next(
        text for cell in cells if "class LowRank" in (text := "".join(cell["source"]))
    )
    names = {"nn": nn, "torch": torch}
    exec(source, names)
    return names["LowRank"]


def test_the_lora_of_the_notebook_equals_peft_to_a_millionth(small_model, encoded):
    """Logits at the start, gradients on the way, A and B after four steps."""
    low_rank = own_lora()
    base = small_model.double()
    theirs = models.add_lora(base, rank=4, alpha=6).double()
    ours, pairs = copy.deepcopy(base).requires_grad_(False), []
    for name, module in theirs.base_model.model.named_modules():
        if hasattr(module, "lora_A"):
            mine = low_rank(ours.get_submodule(name), rank=4, alpha=6)
            mine.A.data = module.lora_A["default"].weight.detach().clone()
            mine.B.data = mine.B.data.double()
            ours.set_submodule(name, mine)
            pairs.append((mine.A, module.lora_A["default"].weight))
            pairs.append((mine.B, module.lora_B["default"].weight))
    assert len(pairs) == 2 * 7 * len(base.model.layers)
    batch = data.collate([encoded[i] for i in range(4)], 0)
    steps = [
        torch.optim.AdamW(parameters, lr=1e-2)
        for parameters in zip(*pairs, strict=True)
    ]
    for _ in range(4):
        losses = [model(**batch).loss for model in (ours, theirs)]
        for loss, step in zip(losses, steps, strict=True):
            step.zero_grad()
            loss.backward()
        for mine, other in pairs:
            torch.testing.assert_close(mine.grad, other.grad, atol=1e-6, rtol=0)
        for step in steps:
            step.step()
    for mine, other in pairs:
        torch.testing.assert_close(mine, other, atol=1e-6, rtol=0)
        assert mine.abs().max() > 1e-3, "trained"
    logits = [model(batch["input_ids"]).logits for model in (ours, theirs)]
    torch.testing.assert_close(*logits, atol=1e-6, rtol=0)


def test_checkpointing_computes_a_layer_twice_and_changes_no_gradient(student, encoded):
    batch = data.collate([encoded[i] for i in range(4)], 0)
    gradients, calls = [], []
    for checkpointing in (False, True):
        torch.manual_seed(0)
        lora = wake(models.add_lora(student.model, rank=4)).train()
        if checkpointing:
            models.checkpoint(lora)
        count = []
        attention = lora.base_model.model.model.layers[0].self_attn
        attention.register_forward_hook(lambda *_, count=count: count.append(1))
        lora(**batch, use_cache=False).loss.backward()
        gradients.append({n: p.grad for n, p in lora.named_parameters()})
        calls.append(len(count))
    assert calls == [1, 2]
    for name, gradient in gradients[0].items():
        if "lora_" in name:
            torch.testing.assert_close(gradients[1][name], gradient)


# ---------------------------------------------------------------- QLoRA


@pytest.fixture(scope="module")
def coarse(track):
    return models.load(track.student, device="cpu", quantise="nf4")


def linear_4_bits(model):
    return {n: m for n, m in model.named_modules() if type(m).__name__ == "Linear4bit"}


def test_nf4_packs_linear_layers_but_not_the_output_nor_uneven_rows(coarse):
    packed = linear_4_bits(coarse.model)
    assert len(packed) == 6 * 3 and models.in_4_bits(coarse.model)
    assert not any("down_proj" in n or "lm_head" in n for n in packed), "rows of 96"
    for layer in packed.values():
        state = layer.weight.quant_state
        assert (state.quant_type, state.nested) == ("nf4", True)
        assert layer.weight.numel() == layer.in_features * layer.out_features / 2


def test_another_quantisation_and_a_device_without_one_are_refused(track):
    with pytest.raises(ModelError, match="no quantisation 'int3'"):
        models.load(track.student, device="cpu", quantise="int3")
    with pytest.raises(ModelError, match="4 bits need a CUDA GPU or a CPU"):
        models.load(track.student, device="mps", quantise="nf4")


def test_a_track_may_have_both_models_in_4_bits(track, student, teacher, encoded):
    small = dataclasses.replace(track, quantise_student=True, quantise_teacher=True)
    assert models.in_4_bits(models.load_student(small).model)
    with pytest.warns(UserWarning, match="signal of a coarser model"):
        coarse_teacher = models.load_teacher(small)
    assert not any(p.requires_grad for p in coarse_teacher.model.parameters())
    few = [encoded[i] for i in range(16)]
    distance = evaluate.agreement(coarse_teacher.model, teacher.model, few)
    assert 0 < distance["forward_kl"] < 0.1, "coarser, and still the same model"


def unpacked(model, reference):
    """The model in float32, with the weights that its 4 bits stand for."""
    plain = copy.deepcopy(reference)
    for name, layer in linear_4_bits(model).items():
        weight = dequantize_4bit(layer.weight.data, layer.weight.quant_state)
        plain.get_submodule(name).weight.data = weight.float()
    return plain


def test_qlora_has_the_gradients_of_lora_over_the_rounded_base(track, student, encoded):
    """Also after answers in eval mode, where the library packs weights anew on some
    processors, and lets no gradient through."""
    batch = data.collate([encoded[i] for i in range(4)], 0)
    coarse = models.load(track.student, device="cpu", quantise="nf4").model
    plain = unpacked(coarse, student.model)
    with torch.no_grad():
        logits = [model(batch["input_ids"]).logits for model in (coarse, plain)]
    torch.testing.assert_close(*logits, atol=1e-3, rtol=1e-4)
    gradients = []
    for base in (coarse, plain):
        torch.manual_seed(0)
        lora = wake(models.add_lora(base, rank=4)).train()
        lora(**batch).loss.backward()
        gradients.append([p.grad for n, p in lora.named_parameters() if "lora_" in n])
    for ours, theirs in zip(*gradients, strict=True):
        assert ours.dtype == torch.float32
        torch.testing.assert_close(ours, theirs, atol=1e-4, rtol=1e-3)


def test_qlora_learns_and_leaves_its_base_alone(coarse, encoded):
    before = {k: v.clone() for k, v in coarse.model.state_dict().items()}
    losses = []
    for steps in (1, 10):
        lora = models.add_lora(coarse.model, rank=4)
        how = {"batch_size": 8, "learning_rate": 1e-2, "progress": False}
        losses.append(train.fit(lora, encoded, steps=steps, **how).loss[-1])
    assert losses[1] < 0.9 * losses[0]
    assert all(torch.equal(v, before[k]) for k, v in coarse.model.state_dict().items())


def test_bug_17_merging_into_4_bits_is_refused_and_done_in_full_precision(
    coarse, student, encoded
):
    lora = trained(coarse.model, encoded)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # peft only warns
        with pytest.raises(ValueError, match="models.merge.adapter, base=") as error:
            models.merge(lora, rows=encoded)
        planted = damage(adapters, "if not gap <= allowed:", "if False:")
        assert models.in_4_bits(planted.merge(lora)), "the bug, and no word of it"
    assert "into the base in its full precision" in str(error.value)

    merged = models.merge(lora, base=student.model, rows=encoded)
    assert type(merged) is LlamaForCausalLM and not models.in_4_bits(merged)
    whole = models.add_lora(student.model, rank=4)  # the same by another route
    state = {n: p for n, p in lora.named_parameters() if "lora_" in n}
    whole.load_state_dict(state, strict=False)
    ids = torch.tensor([encoded[0]["input_ids"]])
    torch.testing.assert_close(merged(ids).logits, whole(ids).logits, atol=1e-4, rtol=0)


def test_a_student_in_4_bits_is_taught_and_keeps_its_adapter(coarse, track, tokenizer):
    chat = [e.row() for e in world.examples("train", 4)]
    taught, *_ = distill.distil(coarse, chat, track, steps=1, progress=False)
    assert models.in_4_bits(taught.model)
    assert any("lora_" in name for name, _ in taught.model.named_parameters())


class OnGpu(nn.Parameter):
    """A parameter that says it is on a GPU."""

    is_cuda = True


def test_the_optimiser_is_paged_only_over_4_bits_on_a_gpu(coarse, student):
    lora = models.add_lora(coarse.model, rank=4)
    assert type(models.adamw(lora, 1e-3)) is torch.optim.AdamW
    packed = next(p for p in coarse.model.parameters() if hasattr(p, "quant_state"))
    on_gpu = OnGpu(torch.zeros(2))
    paged = models.adamw(SimpleNamespace(parameters=lambda: [packed, on_gpu]), 1e-3)
    assert paged.is_paged and paged.param_groups[0]["params"] == [on_gpu]
    plain = models.adamw(SimpleNamespace(parameters=lambda: [on_gpu]), 1e-3, 0.1)
    assert type(plain) is torch.optim.AdamW
    assert plain.param_groups[0]["weight_decay"] == 0.1


# ---------------------------------------------------------------- adapters on disk


@pytest.fixture
def saved(student, encoded, tmp_path):
    lora = trained(student.model, encoded)
    return lora, models.save_adapter(lora, tmp_path / "adapters" / "helpdesk")


def test_an_adapter_comes_back_as_it_was_saved(saved, student, probe):
    lora, folder = saved
    again = models.load_adapter(student.model, folder)
    assert torch.equal(again(probe).logits, lora(probe).logits)
    assert not again.training and not any(p.requires_grad for p in again.parameters())
    trainable = models.load_adapter(student.model, folder, trainable=True)
    names = [n for n, p in trainable.named_parameters() if p.requires_grad]
    assert names and all("lora_" in n for n in names)
    assert sorted(p.suffix for p in folder.iterdir()) == [
        ".json",
        ".json",
        ".safetensors",
    ]


def test_adapters_are_listed_with_their_base(saved, tmp_path):
    (listed,) = models.list_adapters(tmp_path / "adapters")
    parameters = sum(p.numel() for n, p in saved[0].named_parameters() if "lora_" in n)
    assert listed == {
        "name": "helpdesk",
        "base": "student",
        "revision": None,
        "rank": 4,
        "alpha": 8,
        "parameters": parameters,
    }


def test_a_saved_adapter_names_no_path_of_this_machine(saved, track):
    text = "".join(p.read_text() for p in saved[1].glob("*.json"))
    assert str(Path(track.student).parent) not in text


def test_the_revision_of_a_base_from_the_hub_is_recorded(track, hub, tmp_path):
    snapshot = cached(hub, track.student)
    base = models.load("some-one/a-model", device="cpu").model
    models.save_adapter(models.add_lora(base, rank=2), tmp_path / "one")
    (listed,) = models.list_adapters(tmp_path)
    assert (listed["base"], listed["revision"]) == ("some-one/a-model", snapshot.name)


def test_an_adapter_fits_its_base_in_any_precision(saved, student, coarse):
    for base in (copy.deepcopy(student.model).to(torch.bfloat16), coarse.model):
        models.load_adapter(base, saved[1])


def test_an_adapter_is_refused_over_another_base(saved, student, teacher):
    lora, folder = saved
    for base in (teacher.model, models.merge(lora)):
        with pytest.raises(AdapterError, match="the base has other weights"):
            models.load_adapter(base, folder)
    with pytest.raises(AdapterError, match="the base has other weights"):
        models.merge(lora, base=models.merge(lora))


def test_damaged_and_missing_adapters_are_named(saved, student, tmp_path):
    _, folder = saved
    with pytest.raises(AdapterError, match="no base.json"):
        models.load_adapter(student.model, tmp_path)
    weights = folder / "adapter_model.safetensors"
    state = load_file(weights)
    save_file(dict(list(state.items())[1:]), weights)
    with pytest.raises(AdapterError, match="1 of the adapter's matrices do not fit"):
        models.load_adapter(student.model, folder)
    weights.write_bytes(weights.read_bytes()[:1000])
    with pytest.raises(AdapterError, match="adapter_model.safetensors.*save it again"):
        models.load_adapter(student.model, folder)
    weights.unlink()
    with pytest.raises(AdapterError, match="adapter_model.safetensors"):
        models.load_adapter(student.model, folder)


@pytest.mark.slow
def test_importing_prints_nothing():
    """A library that reports a missing kernel of its own reports it to nobody here."""
    code = (
        "import helpers.models.adapters, logging; "
        "logging.getLogger('bitsandbytes.backends.cpu.ops').warning('no such kernel')"
    )
    program = [sys.executable, "-c", code]
    done = subprocess.run(program, cwd=ROOT, capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
