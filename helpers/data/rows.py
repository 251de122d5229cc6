"""One conversation of a chat file: what is wrong with it, and other formats of it."""

import json
from collections import Counter
from collections.abc import Iterable, Iterator
from difflib import get_close_matches
from hashlib import blake2b

ROLES = ("system", "user", "assistant")
ALIASES = {  # what other formats call the roles
    **dict.fromkeys(("human", "customer"), "user"),
    **dict.fromkeys(("gpt", "bot", "chatbot", "model", "ai", "agent"), "assistant"),
    "developer": "system",
}
FORMS = {  # the key of the question, and of its answer, in other formats
    "prompt": ("completion", "response"),
    "instruction": ("output", "response"),
    "question": ("answer",),
}
CONVERT = "convert once: write_chat('new.jsonl', map(to_chat, {}))"


class DataError(ValueError):
    """Data that cannot be used; the message names file, line and cure."""


def as_prompts(rows: Iterable[dict]) -> list[dict]:
    """Conversations as prompts for a teacher: an id each, and a user's turn last.

    A final assistant message becomes `answer`, unless the row has one. A missing id is
    the hash of the messages, so that a row keeps its id, and a resumed run its answers,
    when other rows are inserted, moved or deleted; repeats of one prompt are numbered.
    Raises `DataError` for a row that is no conversation, for an id given twice, and
    where there are no rows at all.
    """
    prompts, places, repeats = [], {}, Counter()
    for number, row in enumerate(rows, 1):
        for spot, text in faults(row, f"row {number}", {}):
            raise DataError(f"row {number}{spot}: {text}")
        *messages, last = row["messages"]
        prompt = {**row, "messages": messages}
        if last["role"] == "user":
            messages.append(last)
        elif prompt.get("answer") is None:
            prompt["answer"] = last["content"]
        if prompt.get("id") is None:
            said = json.dumps([[m["role"], m["content"]] for m in messages])
            name = blake2b(said.encode(), digest_size=8).hexdigest()
            repeats[name] += 1
            prompt["id"] = name if repeats[name] == 1 else f"{name}-{repeats[name]}"
        first = places.setdefault(prompt["id"], number)
        if first != number:
            raise DataError(
                f"rows {first} and {number} share the id {prompt['id']!r}; "
                "give every prompt its own"
            )
        prompts.append(prompt)
    if not prompts:
        raise DataError("no rows; is the file empty, or was everything filtered out?")
    return prompts


def to_chat(row: dict) -> dict:
    """A row of another common format as a conversation; its other keys are kept.

    Knows prompt and completion, question and answer, Alpaca (`instruction`, `input`,
    `output`) and ShareGPT (`conversations` of `from`, `value`). Anything else comes
    back as it is, for `write_chat` to say what is wrong with it.
    """
    keys = _other_form(row)
    if not keys:
        return row
    rest = {key: value for key, value in row.items() if key not in keys}
    if keys == ["conversations"]:
        turns = [(turn.get("from"), turn.get("value")) for turn in row[keys[0]]]
    else:
        question = row[keys[0]]
        if keys[0] == "instruction" and (given := rest.pop("input", None)):
            question = f"{question}\n\n{given}"
        turns = [("user", question), *(("assistant", row[key]) for key in keys[1:])]
    messages = [
        {"role": ALIASES.get(str(role).lower(), role), "content": text}
        for role, text in turns
    ]
    return {**rest, "messages": messages}


def _other_form(row: object) -> list[str]:
    """The keys that hold the conversation, where the row is of a format we know."""
    if not isinstance(row, dict) or "messages" in row:
        return []
    turns = row.get("conversations")
    if isinstance(turns, list) and all(isinstance(turn, dict) for turn in turns):
        return ["conversations"]
    for question, answers in FORMS.items():
        if question in row:
            return [question, *[key for key in answers if key in row][:1]]
    return []


def faults(row: object, place: str, ids: dict) -> Iterator[tuple[str, str]]:
    """Everything wrong with a row: pairs of (where in the row, fault and cure).

    `ids` gathers the place of every id over the rows of a file.
    """
    if not isinstance(row, dict) or not isinstance(row.get("messages"), list):
        yield "", 'needs an object with a list "messages"' + _instead(row)
        return
    for key in ("task", "answer"):
        if not isinstance(row.get(key), str | None):
            yield "", f'"{key}" must be a string; put it in quotes'
    name, sample = row.get("id"), row.get("sample")
    if not isinstance(name, str | int | None) or isinstance(name, bool):
        yield "", '"id" must be a string or a whole number; or leave it out'
    elif not isinstance(sample, int | None):
        yield "", '"sample" must be a whole number, to tell answers of one "id" apart'
    elif name is None or "error" in row:  # one prompt may fail more than once
        pass
    elif ids.setdefault((name, sample), place) != place:
        yield (
            f', "id" {_short(name)} as in {ids[name, sample]}',
            'two rows share an "id"; give each its own, or number several answers to '
            'one prompt in "sample"',
        )
    found = list(_message_faults(row["messages"]))
    yield from found or _turn_faults([m["role"] for m in row["messages"]])


def _instead(row: object) -> str:
    """What stands where `messages` is missing, and how to convert it."""
    if not isinstance(row, dict) or "messages" in row:
        return ""
    if keys := _other_form(row):
        rows = "map(json.loads, open('old.jsonl', encoding='utf-8'))"
        return f"; this has {', '.join(keys)}; " + CONVERT.format(rows)
    return f"; this has only {', '.join(map(_short, list(row)[:6])) or 'no keys'}"


def _message_faults(messages: list) -> Iterator[tuple[str, str]]:
    for number, message in enumerate(messages, 1):
        spot = f", message {number}"
        if not isinstance(message, dict):
            yield spot, 'must be an object with "role" and "content"'
            continue
        role, content = message.get("role"), message.get("content")
        if role not in ROLES:
            yield spot, f'"role" {_role_fault(role)}'
        if content is None:
            yield spot, '"content" is missing or null; fill it in, or drop the row'
        elif isinstance(content, list):
            yield spot, '"content" must be a string; join the "text" of its parts'
        elif not isinstance(content, str):
            yield spot, '"content" must be a string; put it in quotes'
        elif role == "user" and not content.strip():
            yield spot, "the user says nothing; fill it in, or drop the row"


def _role_fault(role: object) -> str:
    known = ", ".join(ROLES)
    if not isinstance(role, str):
        return f"must be one of {known}"
    lower = role.strip().lower()
    if lower in ("tool", "function"):
        return f"is {_short(role)}; tool calls are not read: tell them as user text"
    meant = [ALIASES[lower]] if lower in ALIASES else get_close_matches(lower, ROLES, 1)
    if meant:
        return f'is {_short(role)}; write "{meant[0]}"'
    return f"is {_short(role)}; it must be one of {known}"


def _turn_faults(roles: list[str]) -> Iterator[tuple[str, str]]:
    """System first if at all, then user and assistant in turn."""
    start = roles[:1] == ["system"]
    if len(roles) == 0:
        yield "", '"messages" is empty; it needs at least one user message'
    for i in range(start, max(len(roles), start + 1)):
        if roles[i : i + 1] == [("user", "assistant")[(i - start) % 2]]:
            continue
        if i == len(roles):
            cure = "add a user message"
        elif roles[i] == "system":
            cure = f"move message {i + 1} to the front"
        elif i == start:
            cure = "drop the assistant's opening, or say what it answers"
        else:
            cure = f"join messages {i} and {i + 1}, or add what stood between them"
        yield (
            "",
            f"roles are {', '.join(roles[max(i - 3, 0) : i + 1])}; after an optional "
            f"system message, user and assistant must take turns, user first: {cure}",
        )
        return


def _short(value: object, most: int = 40) -> str:
    text = json.dumps(value)
    return text if len(text) <= most else text[: most - 1] + "…"
