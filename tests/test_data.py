"""Chat JSONL and batches: nothing lost, every defect named with file and line."""

import copy
import json

import pytest
import torch
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
