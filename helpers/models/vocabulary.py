"""Do two models speak the same ids? Their vocabularies, and their chat templates."""

from transformers import PretrainedConfig, PreTrainedTokenizerBase

from ..data.tokens import render_prompt, tokenize_chat

# Rendered by both templates: no system message, for some templates refuse one.
CONVERSATION = (
    {"role": "user", "content": "Is it in stock?"},
    {"role": "assistant", "content": "Yes."},
    {"role": "user", "content": "And how\nmuch is it?"},
    {"role": "assistant", "content": "It costs 12.50."},
)


class VocabularyMismatch(ValueError):
    """Two tokenizers whose ids do not mean the same; the message says where they
    differ."""


class TemplateMismatch(ValueError):
    """Two chat templates that render a conversation differently; the message says
    where."""


def shared_vocab(
    student_tokenizer: PreTrainedTokenizerBase,
    teacher_tokenizer: PreTrainedTokenizerBase,
    student_config: PretrainedConfig,
    teacher_config: PretrainedConfig,
) -> int:
    """How many rows of logits the two models share: slice both to it *before* softmax.

    Models of one family may carry different numbers of padded embedding rows over the
    same tokenizer (Qwen2.5: 151,936 and 152,064). Token t must have the same id in
    both.

    Raises `VocabularyMismatch`, naming the first id that differs and how many do; then
    logits cannot be compared, only the teacher's text can be learnt.
    """
    tokenizers = {"student": student_tokenizer, "teacher": teacher_tokenizer}
    by_id = [{i: t for t, i in t.get_vocab().items()} for t in tokenizers.values()]
    student, teacher = by_id
    ends = [max(tokens) + 1 for tokens in by_id]  # ids may have holes
    size = min(ends)
    differing = [i for i in range(size) if student.get(i) != teacher.get(i)]
    if differing:
        first = differing[0]
        common = len(set(student.values()) & set(teacher.values()))
        raise VocabularyMismatch(
            f"{len(differing):,} of {size:,} ids differ; the first is id {first}: "
            f"student {student.get(first)!r}, teacher {teacher.get(first)!r}. (The "
            f"student knows {len(student):,} tokens, the teacher {len(teacher):,}, "
            f"{common:,} are spelt alike.) Logits of these two cannot be compared, "
            "neither live nor cached; distil from the teacher's text: "
            "generate_answers with the teacher, then fit without one"
        )
    rows = {}
    for (role, tokenizer), config, tokens in zip(
        tokenizers.items(), (student_config, teacher_config), by_id, strict=True
    ):
        rows[role] = _rows(config)
        beyond = [tokens[i] for i in sorted(tokens) if i >= rows[role]]
        # Added markers, as Gemma 3's for images, may lie beyond: text holds none.
        if set(beyond) - set(tokenizer.get_added_vocab()):
            raise VocabularyMismatch(
                f"the {role} has {rows[role]:,} rows of logits for {max(tokens) + 1:,} "
                f"token ids ({beyond[0]!r} has none): model and tokenizer do not "
                "belong together"
            )
    # Where one tokenizer goes on alone, the other's rows there are untrained padding.
    return min(rows.values()) if ends[0] == ends[1] else min(size, *rows.values())


def check_templates(
    student_tokenizer: PreTrainedTokenizerBase,
    teacher_tokenizer: PreTrainedTokenizerBase,
) -> None:
    """Make sure that a conversation gives both models the same ids and labels.

    Rows are encoded once, with the student's tokenizer, and the teacher reads these
    ids. Under a template that it was not tuned with, its logits are those of a confused
    model, and nothing else tells. Needed only where logits are learnt, not for text.

    Raises `TemplateMismatch`, showing the first difference, and `DataError` where a
    template is missing.
    """
    both = student_tokenizer, teacher_tokenizer
    cure = "student.tokenizer.chat_template = teacher.tokenizer.chat_template"
    texts = [rendered(tokenizer) for tokenizer in both]
    if texts[0] != texts[1]:
        at = _first_difference(*texts)
        raise TemplateMismatch(
            "the chat templates differ: after "
            f"{texts[0][max(0, at - 20) : at]!r} the student's goes on with "
            f"{texts[0][at : at + 20]!r}, the teacher's with "
            f"{texts[1][at : at + 20]!r}. Give the student the teacher's, before rows "
            f"are encoded: {cure}"
        )
    rows = [tokenize_chat(tokenizer, CONVERSATION) for tokenizer in both]
    for column in ("input_ids", "labels"):
        student, teacher = (row[column] for row in rows)
        if student != teacher:
            at = _first_difference(student, teacher)
            raise TemplateMismatch(
                f"one text, but other {column} from place {at} on: student "
                f"{student[at : at + 3]}, teacher {teacher[at : at + 3]}. The "
                "tokenizers cut text differently or end an answer with another token: "
                "load both models anew, or give the student the teacher's tokenizer"
            )


def rendered(tokenizer: PreTrainedTokenizerBase) -> str:
    """What the chat template makes of `CONVERSATION`, asked and answered."""
    asked = render_prompt(tokenizer, CONVERSATION[:-1])
    return asked + tokenizer.apply_chat_template(list(CONVERSATION), tokenize=False)


def _first_difference(one, other) -> int:
    pairs = zip(one, other, strict=False)
    return next(
        (i for i, (a, b) in enumerate(pairs) if a != b), min(len(one), len(other))
    )


def _rows(config: PretrainedConfig) -> int:
    """Rows of logits, also where text is one part of a model that sees images."""
    if hasattr(config, "get_text_config"):
        config = config.get_text_config()
    return config.vocab_size
