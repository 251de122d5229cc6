"""Chat JSONL and batches: nothing lost, every defect named with file and line."""

import copy
import json

import pytest
import torch
from datasets import Dataset
from hypothesis import given, settings
from hypothesis import strategies as st

from helpers import data, world
from helpers.data import IGNORE_INDEX, DataError

CHAT = [
    {"role": "system", "content": "Helpdesk."},
    {"role": "user", "content": "Why is it that my lamp drips? 12 x 3?"},
    {"role": "assistant", "content": "Please close the lid."},
]


def test_rows_survive_the_way_to_disk_and_back(tmp_path):
    rows = [e.row() for e in world.examples("train", 20)]
    rows.append({"messages": [{"role": "user", "content": "Žofia\n“hi”\u2028 🙂"}]})
    path = data.write_chat(tmp_path / "deep" / "chat.jsonl", rows)
    assert data.read_chat(path) == rows
    assert not list(tmp_path.rglob("*.part"))


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ('{"messages": [', "line 2, column .*: not JSON"),
        ("[]", 'line 2: needs an object with a list "messages"'),
        ('{"messages": []}', "line 2.*empty"),
        ('{"messages": [{"role": "bot", "content": "x"}]}', "message 1.*role"),
        ('{"messages": [{"role": "user", "content": 3}]}', "message 1.*string"),
        ('{"messages": [{"role": "user", "content": "a"}, '
         '{"role": "user", "content": "b"}]}', "line 2: roles are .*take turns"),
        ('{"messages": [{"role": "system", "content": "a"}]}', "take turns"),
    ],
)  # fmt: skip
def test_a_malformed_line_is_named_with_file_and_line(tmp_path, line, message):
    path = tmp_path / "bad.jsonl"
    good = json.dumps({"messages": CHAT})
    path.write_text(f"{good}\n{line}\n{good}\n")
    with pytest.raises(DataError, match=message) as caught:
        data.read_chat(path)
    assert "bad.jsonl" in str(caught.value)


def test_a_line_in_another_encoding_is_named(tmp_path):
    path = tmp_path / "latin.jsonl"
    path.write_bytes(b'{"messages": [{"role": "user", "content": "caf\xe9"}]}\n')
    with pytest.raises(DataError, match="line 1: not UTF-8"):
        data.read_chat(path)


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=200))
def test_wild_bytes_give_rows_or_a_named_line_and_nothing_else(tmp_path_factory, wild):
    path = tmp_path_factory.mktemp("wild") / "w.jsonl"
    path.write_bytes(wild)
    try:
        rows = data.read_chat(path)
    except DataError as error:
        assert "w.jsonl, line" in str(error)
    else:
        assert all(row["messages"] for row in rows)


def test_a_bad_row_leaves_the_old_file_alone(tmp_path):
    path = data.write_chat(tmp_path / "chat.jsonl", [{"messages": CHAT}])
    with pytest.raises(DataError, match="row 2"):
        data.write_chat(path, [{"messages": CHAT}, {"messages": []}])
    assert data.read_chat(path) == [{"messages": CHAT}]


# ---------------------------------------------------------------- tokens and labels


def test_digits_are_split_singly_and_specials_are_distinct(tokenizer):
    ids = tokenizer("12 x 345")["input_ids"]
    assert [tokenizer.decode(i).strip() for i in ids] == ["1", "2", "x", "3", "4", "5"]
    assert tokenizer.pad_token_id != tokenizer.eos_token_id


@settings(max_examples=100, deadline=None)
@given(st.text(max_size=60))
def test_the_tokenizer_loses_nothing(tokenizer, text):
    assert tokenizer.decode(tokenizer(text)["input_ids"]) == text


def test_labels_are_the_answer_and_its_end_token_only(tokenizer):
    row = data.tokenize_chat(tokenizer, CHAT)
    kept = [i for i in row["labels"] if i != IGNORE_INDEX]
    assert tokenizer.decode(kept) == "Please close the lid.<|end|>"
    assert row["input_ids"][-len(kept) :] == kept
    assert len(row["labels"]) == len(row["input_ids"])


def test_only_the_last_answer_of_a_conversation_is_learnt(tokenizer):
    chat = [
        *CHAT,
        {"role": "user", "content": "No."},
        {"role": "assistant", "content": "Sorry."},
    ]
    kept = [
        i for i in data.tokenize_chat(tokenizer, chat)["labels"] if i != IGNORE_INDEX
    ]
    assert tokenizer.decode(kept) == "Sorry.<|end|>"


def test_text_after_the_end_token_is_not_learnt(tokenizer):
    chatty = copy.deepcopy(tokenizer)
    chatty.chat_template = chatty.chat_template.replace("<|end|>", "<|end|>\n")
    row = data.tokenize_chat(chatty, CHAT)
    assert row["labels"][-1] == chatty.eos_token_id


def test_bug_05_the_end_token_is_kept_where_pad_is_eos(tokenizer):
    same = copy.deepcopy(tokenizer)
    same.pad_token = same.eos_token
    rows = [
        data.tokenize_chat(same, CHAT),
        data.tokenize_chat(same, CHAT[:1] + CHAT[1:]),
    ]
    rows[1] = {key: value[-5:] for key, value in rows[1].items()}
    batch = data.collate(rows, same.pad_token_id)
    lengths = batch["attention_mask"].sum(1)
    for i, length in enumerate(lengths):
        assert batch["labels"][i, length - 1] == same.eos_token_id
        assert (batch["labels"][i, length:] == IGNORE_INDEX).all()


def test_padding_is_marked_and_never_learnt(tokenizer):
    rows = [
        data.tokenize_chat(tokenizer, e.row()["messages"])
        for e in world.examples("train", 8)
    ]
    batch = data.collate(rows, tokenizer.pad_token_id)
    for i, row in enumerate(rows):
        n = len(row["input_ids"])
        assert batch["input_ids"][i, :n].tolist() == row["input_ids"]
        assert batch["attention_mask"][i].sum() == n
    assert (batch["labels"][batch["attention_mask"] == 0] == IGNORE_INDEX).all()
    assert all(value.dtype == torch.long for value in batch.values())


def test_encode_chat_is_a_dataset_of_tokenised_rows(tokenizer):
    rows = [e.row() for e in world.examples("train", 6)]
    encoded = data.encode_chat(rows, tokenizer)
    assert encoded.column_names == ["input_ids", "labels"]
    assert encoded[3] == data.tokenize_chat(tokenizer, rows[3]["messages"])
    with pytest.raises(DataError, match="row 1: .*max_length=10"):
        data.encode_chat(rows, tokenizer, max_length=10)


def test_a_row_without_an_answer_or_a_template_is_refused(tokenizer):
    with pytest.raises(DataError, match="assistant"):
        data.tokenize_chat(tokenizer, CHAT[:2])
    bare = copy.deepcopy(tokenizer)
    bare.chat_template = None
    with pytest.raises(DataError, match="no chat template"):
        data.tokenize_chat(bare, CHAT)


def test_encode_chat_counts_the_rows_that_are_too_long(tokenizer):
    rows = [e.row() for e in world.examples("train", 6)]
    lengths = [len(row["labels"]) for row in data.encode_chat(rows, tokenizer)]
    limit = sorted(lengths)[-3]
    message = (
        rf"row \d: .*max_length={limit}; .*\(2 of 6 rows exceed it; "
        f"the longest has {max(lengths)} tokens"
    )
    with pytest.raises(DataError, match=message):
        data.encode_chat(rows, tokenizer, max_length=limit)
    assert len(data.encode_chat(rows, tokenizer, max_length=max(lengths))) == 6


def test_encode_chat_in_chunks_equals_one_conversation_at_a_time(tokenizer):
    rows = [e.row() for e in world.examples("train", 23)] * 45
    singly = [data.tokenize_chat(tokenizer, row["messages"]) for row in rows[:23]]
    encoded = data.encode_chat(iter(rows), tokenizer)
    assert encoded[:] == Dataset.from_list(singly * 45)[:]
    bad = {"messages": CHAT[:2]}
    with pytest.raises(DataError, match="row 1036: .*must end in an assistant"):
        data.encode_chat([*rows, bad], tokenizer)
    with pytest.raises(DataError, match="no rows; is the file empty"):
        data.encode_chat([], tokenizer)


# ---------------------------------------------------------------- other templates

# Each does in a few words what the template of a well-known model does.
TURNS = "{% for m in messages %}<|{{ m.role }}|>{{ m.content }}<|end|>{% endfor %}"
ASK = "{% if add_generation_prompt %}<|assistant|>{% endif %}"
ADDS_SYSTEM = (  # Qwen2.5
    "{% if messages[0].role != 'system' %}<|system|>You help.<|end|>{% endif %}"
    + TURNS + ASK
)  # fmt: skip
THINKS = (  # Qwen3: thinking of past turns is dropped, the last answer always has some
    "{% for m in messages %}<|{{ m.role }}|>"
    "{% if m.role == 'assistant' %}{% set parts = m.content.split('</think>') %}"
    "{% if loop.last %}<think>{{ parts[0] if parts|length > 1 else '' }}</think>"
    "{% endif %}{{ parts[-1] }}{% else %}{{ m.content }}{% endif %}<|end|>{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>"
    "{% if enable_thinking is defined and not enable_thinking %}<think></think>"
    "{% endif %}{% endif %}"
)
NO_SYSTEM = (  # Gemma 2
    "{% if messages[0].role == 'system' %}"
    "{{ raise_exception('System role not supported') }}{% endif %}" + TURNS + ASK
)
OPENS_THOUGHT = TURNS + ASK.replace("<|assistant|>", "<|assistant|><think>")  # R1
OTHER_END = TURNS.replace("<|end|>", "<stop>\n") + ASK  # its end token is no eos


@pytest.fixture
def speaks(tokenizer):
    def with_template(template):
        other = copy.deepcopy(tokenizer)
        other.chat_template = template
        return other

    return with_template


def learnt(tokenizer, chat):
    labels = data.tokenize_chat(tokenizer, chat)["labels"]
    return tokenizer.decode([i for i in labels if i != IGNORE_INDEX])


def test_a_system_prompt_that_a_template_adds_is_read_not_learnt(speaks):
    tokenizer = speaks(ADDS_SYSTEM)
    assert "You help." in data.render_prompt(tokenizer, CHAT[1:2])
    assert learnt(tokenizer, CHAT[1:]) == "Please close the lid.<|end|>"
    assert "You help." not in data.render_prompt(tokenizer, CHAT[:2])


def test_a_thinking_model_is_asked_and_taught_to_answer_at_once(speaks):
    tokenizer = speaks(THINKS)
    past = {"role": "assistant", "content": "Hm, lamps.</think>Which lamp?"}
    chat = [CHAT[1], past, {"role": "user", "content": "The red one."}, CHAT[2]]
    prompt = data.render_prompt(tokenizer, chat[:-1])
    assert prompt.endswith("<think></think>") and "Hm, lamps." not in prompt
    assert learnt(tokenizer, chat) == "Please close the lid.<|end|>"
    with pytest.raises(DataError, match="'Hm, .* in place of .*thinking marks"):
        data.tokenize_chat(tokenizer, chat[:2])


def test_a_template_that_opens_a_thought_is_refused_with_the_place(speaks):
    with pytest.raises(DataError, match="'Please close the lid' in place of '<think>"):
        data.tokenize_chat(speaks(OPENS_THOUGHT), CHAT)


def test_a_template_without_a_system_role_says_where_its_text_goes(speaks):
    tokenizer = speaks(NO_SYSTEM)
    cure = "System role not supported.*start of the first user message"
    with pytest.raises(DataError, match=cure) as caught:
        data.render_prompt(tokenizer, CHAT[:2])
    assert caught.value.__suppress_context__
    with pytest.raises(DataError, match=f"row 2: .*{cure}"):
        data.encode_chat([{"messages": CHAT[1:]}, {"messages": CHAT}], tokenizer)


def test_the_end_token_is_learnt_where_a_template_ends_otherwise(speaks):
    said = learnt(speaks(OTHER_END), CHAT)
    assert said.startswith("Please close the lid.") and said.endswith("<|end|>")


def test_an_answer_that_holds_the_end_token_is_refused_not_cut(tokenizer):
    chat = [*CHAT[:2], {"role": "assistant", "content": "Write <|end|> here."}]
    with pytest.raises(DataError, match="contains the end token"):
        data.tokenize_chat(tokenizer, chat)


def test_a_tokenizer_without_an_end_token_is_refused(tokenizer):
    endless = copy.deepcopy(tokenizer)
    endless.eos_token = None
    with pytest.raises(DataError, match="no end token; set tokenizer.eos_token"):
        data.render_prompt(endless, CHAT[:2])
