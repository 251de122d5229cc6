"""Does a model that is 80 % sure turn out right 80 times in 100?

Three confidences, each with the event it is held against:

* of a token: the probability of the likeliest next token, given the gold text so far;
  right when it is the token of the gold text (`token_scores`: `confidence`, `hit`).
* of a whole answer: the product of the probabilities of its tokens, end of answer
  included (`answer_confidence`: `answer`). The chance of exactly these words: a model
  that knows ten good wordings gives each a low one.
* mean of the tokens: the geometric mean of the same probabilities (`token_mean`). It
  does not shrink with length, but it is a score rather than the chance of any event.

The last two are held against whether a verifier accepts the answer.
"""

from collections.abc import Sequence

import numpy as np
import pandas as pd

from ..data.tokens import encode_chat
from ..models.loading import ChatModel
from .likelihood import token_scores


def reliability(
    confidence: Sequence[float], right: Sequence[bool], bins: int = 15
) -> pd.DataFrame:
    """Confidence against accuracy in bins of equal width: the reliability diagram.

    A row a bin (`low`, `high`], the first with 0: `count`, mean `confidence`,
    `accuracy`; the two are NaN in an empty bin. Raises `ValueError` for unequal
    lengths, no items, or a confidence outside 0 to 1.
    """
    confidence, right = np.asarray(confidence, float), np.asarray(right, float)
    if confidence.shape != right.shape or confidence.ndim != 1 or not len(right):
        raise ValueError(
            f"{confidence.size} confidences and {right.size} outcomes: give one each, "
            "and at least one"
        )
    if not ((confidence >= 0) & (confidence <= 1)).all():
        raise ValueError("a confidence is a probability from 0 to 1")
    edges = np.linspace(0, 1, bins + 1)
    place = np.searchsorted(edges[1:-1], confidence)
    count = np.bincount(place, minlength=bins)
    sums = [np.bincount(place, x, minlength=bins) for x in (confidence, right)]
    with np.errstate(invalid="ignore"):
        means = [total / count for total in sums]
    return pd.DataFrame(
        {
            "low": edges[:-1],
            "high": edges[1:],
            "count": count,
            "confidence": means[0],
            "accuracy": means[1],
        }
    )


def ece(confidence: Sequence[float], right: Sequence[bool], bins: int = 15) -> float:
    """Expected calibration error (Guo et al. 2017): the mean distance from accuracy to
    confidence over the bins of `reliability`, weighted by their counts.

    Chance alone keeps it above 0: a few items in a bin seldom hit their confidence.
    """
    table = reliability(confidence, right, bins)
    distance = (table["accuracy"] - table["confidence"]).abs()
    return float((distance * table["count"]).sum() / table["count"].sum())


def answer_confidence(
    chat: ChatModel,
    prompts: Sequence[Sequence[dict]],
    answers: Sequence[str],
    *,
    batch_size: int = 64,
) -> pd.DataFrame:
    """How sure the model is of each answer: `answer` and `token_mean`, see above.

    The answers may be its own or anyone's. An answer that was cut short is scored as
    if it had ended there.
    """
    rows = [
        {"messages": [*prompt, {"role": "assistant", "content": answer}]}
        for prompt, answer in zip(prompts, answers, strict=True)
    ]
    encoded = encode_chat(rows, chat.tokenizer)
    tokens = token_scores(chat.model, encoded, batch_size=batch_size)
    nll = tokens.groupby("row")["nll"]
    return pd.DataFrame(
        {"answer": np.exp(-nll.sum()), "token_mean": np.exp(-nll.mean())}
    )
