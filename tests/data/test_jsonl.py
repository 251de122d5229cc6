"""Learners' own files: every defect named with line and cure, whatever the bytes."""

import gzip
import json
import math
import re
import tracemalloc

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from helpers import data
from helpers.data import DataError, jsonl

CHAT = [
    {"role": "system", "content": "Helpdesk."},
    {"role": "user", "content": "Does my lamp drip?"},
    {"role": "assistant", "content": "Please close the lid."},
]


def complaint(path, content: bytes | str) -> str:
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(DataError) as caught:
        data.read_chat(path)
    assert caught.value.__cause__ is None
    assert str(path) in str(caught.value)
    return str(caught.value)


def line(*said: str, **keys) -> str:
    roles = ("user", "assistant") * len(said)
    messages = [{"role": r, "content": s} for r, s in zip(roles, said, strict=False)]
    return json.dumps({"messages": messages, **keys}, ensure_ascii=False) + "\n"


def bad(role='"user"', content='"Hi"', keys="") -> str:
    return f'{{"messages": [{{"role": {role}, "content": {content}}}]{keys}}}\n'


ANSWERED = '{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}'

# what a learner hands in -> what the message must say: where, what, and the cure
DEFECTS = {
    "Human": (bad('"Human"'), 'message 1: "role" is "Human"; write "user"'),
    "bot": (bad('"bot"'), '"role" is "bot"; write "assistant"'),
    "capital": (bad('"Assistant"'), 'is "Assistant"; write "assistant"'),
    "typo": (bad('"asistant"'), 'is "asistant"; write "assistant"'),
    "unknown role": (bad('"narrator"'), "must be one of system, user, assistant"),
    "no role": ('{"messages": [{"content": "x"}]}', "must be one of system, user"),
    "role is a list": (bad("[]"), "must be one of system, user"),
    "tool": (bad('"tool"'), "tell them as user text"),
    "parts": (bad(content='[{"type": "text", "text": "x"}]'), 'join the "text"'),
    "null": (bad(content="null"), "fill it in, or drop the row"),
    "number": (bad(content="3"), "put it in quotes"),
    "silent user": (bad(content='" "'), "the user says nothing"),
    "no message": ('{"messages": ["Hi"]}', 'an object with "role" and "content"'),
    "two users": (
        f'{{"messages": [{ANSWERED}, {ANSWERED[:32]}, {ANSWERED}]}}',
        "roles are user, assistant, user, user; .*: join messages 3 and 4",
    ),
    "late system": (
        f'{{"messages": [{ANSWERED}, {{"role": "system", "content": "s"}}]}}',
        "move message 3 to the front",
    ),
    "assistant first": (bad('"assistant"'), "drop the assistant's opening"),
    "system only": (bad('"system"'), "add a user message"),
    "task": (bad(keys=', "task": 3'), '"task" must be a string'),
    "answer": (bad(keys=', "answer": 36'), '"answer" must be a string; put it in'),
    "id": (bad(keys=', "id": 1.5'), '"id" must be a string or a whole number'),
    "id is true": (bad(keys=', "id": true'), '"id" must be a string or a whole'),
    "sample": (bad(keys=', "sample": [1]'), '"sample" must be a whole number'),
    "NaN": (bad(keys=', "score": NaN'), "NaN is no JSON number; write null"),
    "infinite": (bad(keys=', "score": -Infinity'), "-Infinity is no JSON number"),
    "too large": (bad(keys=', "score": 1e999'), "1e999 is no JSON number"),
    "5,000 digits": (bad(keys=', "n": ' + "1" * 5000), "too many digits"),
    "key twice": (bad(keys=', "task": "a", "task": "b"'), "'task' stands twice"),
    "half an emoji": (bad(content=r'"Hi \ud83d"'), "half a character after .*Hi"),
    "deep": ('{"messages": ' + "[" * 100_000, "nested too deeply"),
    "prompt": ('{"prompt": "a", "completion": "b"}', "has prompt, completion; conv"),
    "Alpaca": ('{"instruction": "a", "output": "b"}', r"instruction, .*map\(to_chat"),
    "ShareGPT": ('{"conversations": [{"from": "gpt"}]}', "has conversations; convert"),
    "other keys": ('{"text": "a", "label": 1}', 'this has only "text", "label"'),
    "Python": ("{'messages': []}", "column 2: not JSON .*double quotes"),
    "comma": (bad().strip() + ",", "column 50: not JSON .*no comma after"),
    "old Mac": (bad().strip() + "\r" + bad(), "a line of its own"),
    "null line": ("null", 'needs an object with a list "messages"'),
}


@pytest.mark.parametrize(("content", "message"), DEFECTS.values(), ids=DEFECTS)
def test_a_defect_is_one_readable_line_with_its_cure(tmp_path, content, message):
    said = complaint(tmp_path / "mine.jsonl", line("a", "b") + content)
    assert re.search(rf"mine\.jsonl, line 2\b.*{message}", said), said
    assert "\n" not in said
    assert len(said.replace(str(tmp_path), "")) < 260


FOREIGN = {
    "array": (json.dumps([{"messages": []}] * 2), r"JSON array.*json\.load"),
    "array, spread": ('\ufeff[\n {"instruction": "a"}\n]', "a JSON array"),
    "spread": (json.dumps({"messages": CHAT}, indent=1), "over several lines"),
    "CSV": ("prompt,completion\nHi,Hello\n", r"CSV.*pandas\.read_csv\('mine\.jsonl'"),
    "CSV, quoted": ('"id";"text"\r\n1;"a"\r\n', "CSV"),
    "UTF-16": (line("a").encode("utf-16"), "UTF-16.*save the file as UTF-8"),
    "UTF-16, no mark": (line("a").encode("utf-16-le"), "UTF-16"),
    "gzip": (gzip.compress(line("a").encode()), "gunzip mine.jsonl"),
    "Excel": (b"PK\x03\x04" + bytes(50), "Excel"),
}


@pytest.mark.parametrize(("content", "message"), FOREIGN.values(), ids=FOREIGN)
def test_a_file_of_another_kind_gets_one_message_not_one_a_line(
    tmp_path, content, message
):
    said = complaint(tmp_path / "mine.jsonl", content)
    assert re.search(f"mine.jsonl, line 1: .*{message}", said), said
    assert "\n" not in said


@pytest.mark.parametrize(
    "content",
    [
        b"\xef\xbb\xbf" + line("Žofia").encode(),
        line("Žofia").replace("\n", "\r\n\r\n").encode() * 2,
        b"\n \t\n" + line("a", "b", "c").encode().strip(),
        bad(keys=', "id": null, "task": null, "answer": null, "n": 1.5').encode(),
        line("a", "").encode(),  # an empty answer is a matter of quality
        line("a", id=1).encode() + line("a", id="1").encode(),
        line("a", id=1, sample=0).encode() + line("a", id=1, sample=1).encode(),
        line("a", id=1, error="429").encode() * 2,  # it failed twice
        bad(content=r'"\ud83d\ude42"').encode(),
        json.dumps({"messages": CHAT[:2]}).encode(),  # Azure ML: no answer
        b"",
    ],
)
def test_what_is_harmless_is_read(tmp_path, content):
    path = tmp_path / "fine.jsonl"
    path.write_bytes(content)
    rows = data.read_chat(path)
    assert len(rows) == content.count(b"messages")
    data.write_chat(path, rows)
    assert data.read_chat(path) == rows


def test_all_defects_are_listed_at_once_each_kind_with_its_lines(tmp_path):
    rows = [bad('"bot"')] * 50 + [line("a"), "{\n", bad(content="3"), bad('"bot"', "4")]
    said = complaint(tmp_path / "mine.jsonl", line("a") + "".join(rows)).splitlines()
    assert said[0].endswith("mine.jsonl has 54 defects:")
    assert said[1] == (
        'mine.jsonl, line 2, message 1: "role" is "bot"; write "assistant" (also '
        "line 3, message 1; line 4, message 1; line 5, message 1; 47 more)"
    )
    assert said[2].startswith("mine.jsonl, line 53, column 2: not JSON")
    assert said[3].startswith('mine.jsonl, line 54, message 1: "content"')
    assert len(said) == 4


def test_a_long_list_of_defects_is_cut_and_says_how_many_more(tmp_path):
    rows = "".join(json.dumps({f"key{i}": 1}) + "\n" for i in range(500))
    said = complaint(tmp_path / "mine.jsonl", rows).splitlines()
    assert len(said) == 22
    assert said[-1] == "and 480 more of other kinds; mend these first"


def test_two_rows_with_one_id_are_named_with_both_lines(tmp_path):
    rows = line("a", id="x") + "\n" + line("b", id="y") + line("c", id="x")
    said = complaint(tmp_path / "mine.jsonl", rows)
    assert 'line 4, "id" "x" as in line 1: two rows share an "id"' in said


def test_an_overlong_line_is_named_and_never_held_whole(tmp_path):
    path = tmp_path / "mine.jsonl"
    with path.open("w") as file:
        file.write(line("a"))
        for _ in range(50):
            file.write("x" * 2**20)
        file.write("\n" + line("b") + "{")
    tracemalloc.start()
    with pytest.raises(DataError) as caught:
        data.read_chat(path)
    assert tracemalloc.get_traced_memory()[1] < 3 * jsonl.MAX_LINE
    tracemalloc.stop()
    assert "line 2: longer than 16 MiB" in str(caught.value)
    assert "line 4, column 2: not JSON" in str(caught.value)


def test_rows_stream_and_stop_at_the_first_defect(tmp_path):
    path = tmp_path / "mine.jsonl"
    path.write_text(line("a") + "{\n" + line("b") + "[1]\n")
    seen = []
    with pytest.raises(DataError, match="line 4") as caught:
        for row in data.iter_chat(path):
            seen.append(row["messages"][0]["content"])
    assert seen == ["a"] and "line 2" in str(caught.value)


def test_streaming_needs_no_more_memory_for_more_rows(tmp_path):
    def peak(count):
        path = tmp_path / f"{count}.jsonl"
        path.write_text(line("a" * 2000, "b") * count)
        tracemalloc.start()
        assert sum(1 for _ in data.iter_chat(path)) == count
        most = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return most

    peak(10)
    assert peak(2000) < 1.2 * peak(100)  # 4 MB against 0.2 MB on disk


def test_a_missing_file_or_a_folder_is_told_what_there_is(tmp_path):
    data.write_chat(tmp_path / "trian.jsonl", [{"messages": CHAT}])
    (tmp_path / "notes.txt").touch()
    with pytest.raises(FileNotFoundError, match="no such file; .* has trian.jsonl$"):
        data.read_chat(tmp_path / "train.jsonl")
    with pytest.raises(FileNotFoundError, match="there is no folder"):
        data.read_chat(tmp_path / "deta" / "train.jsonl")
    with pytest.raises(DataError, match="is a folder, not a file; .*trian.jsonl"):
        data.read_chat(tmp_path)


# ---------------------------------------------------------------- wild input

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text() | st.floats(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=8,
)
messages = st.lists(
    st.fixed_dictionaries(
        {"role": st.sampled_from(["system", "user", "assistant", "bot"]),
         "content": st.text() | json_values}
    ),
    max_size=4,
)  # fmt: skip
almost_rows = st.dictionaries(
    st.sampled_from(["messages", "id", "task", "answer", "sample", "prompt", "x"]),
    messages | json_values,
)
junk = st.sampled_from(
    ["\ufeff", "\u2028", "\r", "\0", "\x85", '"', "{", "}", ",", "\\ud800"]
)


@pytest.mark.slow
@settings(max_examples=100, deadline=None)
@given(
    st.lists(almost_rows | json_values, max_size=4),
    st.lists(junk, max_size=3),
    st.sampled_from(["utf-8", "utf-8-sig", "utf-16", "latin-1"]),
    st.randoms(),
)
def test_almost_good_files_give_rows_or_a_data_error_and_nothing_else(
    tmp_path_factory, rows, thrown, encoding, chance
):
    text = "".join(
        json.dumps(row, ensure_ascii=chance.random() < 0.5) + "\n" for row in rows
    )
    for piece in thrown:
        at = chance.randrange(len(text) + 1)
        text = text[:at] + piece + text[at:]
    path = tmp_path_factory.mktemp("wild") / "w.jsonl"
    path.write_bytes(text.encode(encoding, "replace"))
    try:
        read = data.read_chat(path)
    except DataError as error:
        assert "w.jsonl, line" in str(error)
    else:
        data.write_chat(path, read)
        assert data.read_chat(path) == read


sayings = st.text(min_size=1).filter(str.strip)
plain = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text()
    | st.floats(allow_nan=False, allow_infinity=False),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=6,
)  # fmt: skip


@st.composite
def good_rows(draw):
    said = draw(st.lists(sayings, min_size=1, max_size=4))
    system = [{"role": "system", "content": draw(st.text())}] * draw(st.booleans())
    turns = [
        {"role": ("user", "assistant")[i % 2], "content": s} for i, s in enumerate(said)
    ]
    more = draw(st.dictionaries(st.text(), plain, max_size=3))
    for key in ("id", "task", "answer", "sample"):
        more.pop(key, None)
    return {**more, "messages": system + turns}


@settings(max_examples=100, deadline=None)
@given(st.lists(good_rows(), max_size=4))
def test_any_good_rows_survive_the_way_to_disk_and_back(tmp_path_factory, rows):
    path = data.write_chat(tmp_path_factory.mktemp("good") / "g.jsonl", rows)
    assert data.read_chat(path) == rows


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ({"messages": [{"role": "user", "content": "Hi \ud83d"}]}, "half a character"),
        ({"messages": CHAT, "score": math.nan}, "cannot be written as JSON"),
        ({"messages": CHAT, "when": {1, 2}}, "cannot be written as JSON"),
        ({"messages": CHAT, "id": "a"}, 'share an "id"'),
        ({"messages": CHAT[:1]}, "add a user message"),
    ],
)
def test_a_row_that_cannot_be_read_back_is_not_written(tmp_path, row, reason):
    with pytest.raises(DataError, match=f"c.jsonl, row 2.*{reason}"):
        data.write_chat(tmp_path / "c.jsonl", [{"messages": CHAT, "id": "a"}, row])
    assert not list(tmp_path.iterdir())


# ---------------------------------------------------------------- prompts, conversion


def test_prompts_have_an_id_end_in_the_user_and_keep_the_answer_apart():
    gold = {"messages": CHAT, "answer": "gold", "task": "qa"}
    first, second, third = data.as_prompts(
        [{"messages": CHAT, "id": "x"}, gold, {"messages": CHAT[:2]}]
    )
    assert first == {"messages": CHAT[:2], "id": "x", "answer": CHAT[2]["content"]}
    assert second["messages"] == CHAT[:2] and second["answer"] == "gold"
    assert second["task"] == "qa"
    assert third.keys() == {"messages", "id"}
    assert len(CHAT) == 3 and "id" not in gold  # what was given is left as it was


def test_ids_survive_inserted_moved_and_deleted_rows():
    rows = [{"messages": [{"role": "user", "content": c}]} for c in "abcdb"]
    ids = [prompt["id"] for prompt in data.as_prompts(rows)]
    assert len(set(ids)) == 5 and ids[4] == ids[1] + "-2"
    new = {"messages": [{"role": "user", "content": "new"}]}
    again = data.as_prompts([new, rows[3], *rows[:3]])
    assert [prompt["id"] for prompt in again[1:]] == [ids[3], *ids[:3]]
    answered = [{"messages": [*row["messages"], CHAT[2]]} for row in rows]
    assert [prompt["id"] for prompt in data.as_prompts(answered)] == ids


def test_prompts_that_cannot_be_asked_are_refused():
    with pytest.raises(DataError, match="rows 1 and 3 share the id 7"):
        data.as_prompts([{"messages": CHAT, "id": i} for i in (7, 8, 7)])
    with pytest.raises(DataError, match='row 1, message 1: "role"'):
        data.as_prompts([{"messages": [{"role": "bot", "content": "Hi"}]}])
    with pytest.raises(DataError, match="is the file empty"):
        data.as_prompts([])


@pytest.mark.parametrize(
    ("row", "said"),
    [
        ({"prompt": "a", "completion": "b", "id": 1}, ["a", "b"]),
        ({"question": "a", "answer": "b"}, ["a", "b"]),
        ({"prompt": "a"}, ["a"]),
        ({"instruction": "a", "input": "x", "output": "b"}, ["a\n\nx", "b"]),
        ({"instruction": "a", "input": "", "output": "b"}, ["a", "b"]),
        ({"conversations": [{"from": "human", "value": "a"},
                            {"from": "gpt", "value": "b"}]}, ["a", "b"]),
        ({"messages": [{"role": "user", "content": "a"}]}, ["a"]),
    ],
)  # fmt: skip
def test_other_formats_become_conversations(tmp_path, row, said):
    path = data.write_chat(tmp_path / "c.jsonl", [data.to_chat(row)])
    (read,) = data.read_chat(path)
    assert [message["content"] for message in read["messages"]] == said
    assert read.get("id") == row.get("id")
    assert read.keys() <= {"messages", "id"}


@settings(max_examples=100, deadline=None)
@given(
    almost_rows
    | st.dictionaries(
        st.sampled_from(["conversations", "instruction", "input", "output"]),
        st.lists(st.dictionaries(st.sampled_from(["from", "value"]), json_values))
        | json_values,
    )
)
def test_converting_wild_rows_raises_nothing(row):
    assert isinstance(data.to_chat(row), dict)
