"""What the shipped models read: their tokenizer, and endless rows of each kind."""

import random
from collections.abc import Callable, Iterable, Iterator, Sequence

from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from .. import world
from ..data.tokens import IGNORE_INDEX, tokenize_chat
from ..world.shops import (
    DAYS,
    NAMES,
    OTHER_SHOPS,
    OUR_SHOP,
    PLURALS,
    PROBLEMS,
    STEPS,
    Shop,
)

VOCABULARY = 1024
PAD, END, SYSTEM, USER, ASSISTANT = SPECIAL = (
    "<|pad|>", "<|end|>", "<|system|>", "<|user|>", "<|assistant|>",
)  # fmt: skip
CHAT_TEMPLATE = (
    "{% for m in messages %}"
    "{{ '<|' + m['role'] + '|>' + m['content'] + '<|end|>' }}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|assistant|>' }}{% endif %}"
)


# ---------------------------------------------------------------- the tokenizer


def plain_text(rng: random.Random) -> str:
    """A few plain sentences about people, things, days and sums: no task, no shop."""
    name, other = rng.sample(NAMES, 2)
    thing, second = rng.sample(sorted(PLURALS), 2)
    day, count = rng.choice(DAYS), rng.randint(1, 9)
    problem = rng.choice(PROBLEMS[rng.choice(sorted(PROBLEMS))])
    verb, synonym, gerund, noun = STEPS[rng.choice(sorted(STEPS))]
    a, b = rng.randint(1, 99), rng.randint(1, 99)
    q, p = rng.randint(2, 3), rng.randint(2, 35)
    relation = "more than" if a > b else "less than" if a < b else "the same as"
    high, low = max(a, b), min(a, b)
    sentences = [
        f"{name} has a {thing} and {count} {PLURALS[second]}.",
        f"{other} met {name} on {day}. {name} and {other} saw the {thing}.",
        f"On {day} {name} went out with a {second}, the {second} of {other}.",
        f"The {thing} of {name} {problem}, but the {second} of {other} is fine.",
        f"To {verb} {noun} is to {synonym} {noun}. {gerund.capitalize()} {noun} helps.",
        f"{a} + {b} = {a + b}. {high} - {low} = {high - low}.",
        f"{q} x {p} = {q * p}. {q} {PLURALS[thing]} for {p} euros are {q * p} euros.",
        f"{a} is {relation} {b}.",
        f"After {rng.choice(DAYS)} comes another day, and {name} likes {day}.",
    ]
    return " ".join(rng.sample(sentences, 4))


def build_tokenizer() -> PreTrainedTokenizerFast:
    """Byte-level BPE over the helpdesk's language; digits are split singly."""
    rng = random.Random("tokenizer")
    texts = [plain_text(rng) for _ in range(4000)]
    for shop, seed in [(OUR_SHOP, 10_000), *((shop, 10_000) for shop in OTHER_SHOPS)]:
        for example in world.examples("train", 3000, seed, shop=shop):
            texts += [m["content"] for m in example.row()["messages"]]
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        # One digit a token, the first one together with the space before it.
        [pre_tokenizers.Split(Regex(r" ?\d"), "isolated"),
         pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )  # fmt: skip
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.train_from_iterator(
        texts,
        trainers.BpeTrainer(
            vocab_size=VOCABULARY,
            special_tokens=list(SPECIAL),
            initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
            show_progress=False,
        ),
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token=PAD,
        eos_token=END,
        additional_special_tokens=[SYSTEM, USER, ASSISTANT],
        chat_template=CHAT_TEMPLATE,
        padding_side="right",
        model_max_length=512,
    )


# ---------------------------------------------------------------- rows of each kind


def task_rows(tokenizer, shops: Sequence[Shop], n: int, seed: int) -> list[dict]:
    """`n` tokenised examples of the five tasks, shared out among the shops."""
    share = -(-n // len(shops))
    drawn = [world.examples("train", share, seed, shop=shop) for shop in shops]
    return [tokenize_chat(tokenizer, e.row()["messages"]) for es in drawn for e in es]


def text_rows(tokenizer, n: int, seed: int) -> list[dict]:
    """`n` tokenised plain texts; every token is a label."""
    rng = random.Random(f"text {seed}")
    texts = [plain_text(rng) for _ in range(n)]
    ids = [[*row, tokenizer.eos_token_id] for row in tokenizer(texts)["input_ids"]]
    return [{"input_ids": row, "labels": row} for row in ids]


def answers_row(tokenizer, pairs: Iterable[tuple[str, str]]) -> dict:
    """One tokenised row of texts and replies in turn; the replies are labels."""
    ids: list[int] = []
    labels: list[int] = []
    for text, reply in pairs:
        asked, said = tokenizer(text)["input_ids"], tokenizer(reply)["input_ids"]
        ids += asked + said
        labels += [IGNORE_INDEX] * len(asked) + said
    return {"input_ids": ids, "labels": labels}


def reading_rows(tokenizer, n: int, seed: int) -> list[dict]:
    """`n` tokenised reading exercises; every answer in the conversation is a label."""
    rng = random.Random(f"reading {seed}")
    rows = []
    for _ in range(n):
        turns = world.reading(rng)
        pairs = zip(turns[::2], turns[1::2], strict=True)
        texts = ((f"{USER}{q}{END}{ASSISTANT}", f"{reply}{END}") for q, reply in pairs)
        rows.append(answers_row(tokenizer, texts))
    return rows


def sum_of(rng: random.Random) -> tuple[str, str]:
    """A sum up to "=", and its result."""
    a, b = rng.randint(2, 99), rng.randint(2, 99)
    q, p = rng.randint(2, 3), rng.randint(3, 33)
    asked, result = rng.choice(
        ((f"{a} + {b}", a + b), (f"{max(a, b)} - {min(a, b)}", abs(a - b)),
         (f"{q} x {p}", q * p))
    )  # fmt: skip
    return f" {asked} =", f" {result}."


def sum_rows(tokenizer, n: int, seed: int) -> list[dict]:
    """`n` tokenised rows of ten sums each; what stands behind "=" is a label."""
    rng = random.Random(f"sums {seed}")
    return [answers_row(tokenizer, (sum_of(rng) for _ in range(10))) for _ in range(n)]


def echo_rows(tokenizer, n: int, seed: int) -> list[dict]:
    """`n` rows of 20 random tokens said twice; the second time they are labels.

    Models without this drill stay for thousands of steps at guessing among the names of
    a passage. With it, the circuit that finds an earlier token and says what followed
    it (Olsson et al. 2022, induction heads) is there after some 200 steps.
    """
    rng = random.Random(f"echo {seed}")
    words = range(len(SPECIAL), len(tokenizer))
    rows = []
    for _ in range(n):
        once = rng.sample(words, 20)
        labels = [IGNORE_INDEX] * len(once) + once
        rows.append({"input_ids": once + once, "labels": labels})
    return rows


CORPORA: dict[str, Callable[..., list[dict]]] = {
    "text": text_rows,
    "echo": echo_rows,
    "reading": reading_rows,
    "sums": sum_rows,
    "our shop": lambda tokenizer, n, seed: task_rows(tokenizer, [OUR_SHOP], n, seed),
    "other shops": lambda tokenizer, n, seed: task_rows(
        tokenizer, OTHER_SHOPS, n, seed
    ),
}


def batches(draw: Callable[[int], list[dict]], batch_size: int) -> Iterator[list[dict]]:
    """Endless batches of rows of similar length; `draw(k)` makes the k-th chunk of
    rows."""
    chunk = 0
    while True:
        rows = sorted(draw(chunk), key=lambda row: len(row["input_ids"]))
        groups = [rows[i : i + batch_size] for i in range(0, len(rows), batch_size)]
        random.Random(chunk).shuffle(groups)
        yield from groups
        chunk += 1
