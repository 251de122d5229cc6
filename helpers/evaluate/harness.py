"""Public benchmarks for real models, by EleutherAI's lm-evaluation-harness."""

from collections.abc import Sequence

import pandas as pd

from ..models.loading import ChatModel


def lm_eval_scores(
    chat: ChatModel, tasks: Sequence[str], *, batch_size: int = 8, **settings
) -> pd.DataFrame:
    """A tidy table of what lm-eval (Gao et al.) measures: task, metric, value, error.

    `tasks` are its names ("gsm8k", "hellaswag"); `settings` go to
    `lm_eval.simple_evaluate`: limit, num_fewshot, apply_chat_template, ... Tasks fetch
    their data from the hub on first use. `error` is the standard error, NaN where the
    task gives none.

    Raises `ImportError` with the command that installs it: it is no part of the
    requirements, for it brings twenty packages and 100 MB that the course never needs.
    """
    try:
        import lm_eval
        from lm_eval.models.huggingface import HFLM
    except ImportError as error:
        raise ImportError(
            f'lm-eval is needed ({error}): pip install "lm-eval==0.4.13"'
        ) from None
    wrapped = HFLM(
        pretrained=chat.model, tokenizer=chat.tokenizer, batch_size=batch_size
    )
    found = lm_eval.simple_evaluate(model=wrapped, tasks=list(tasks), **settings)
    rows = []
    for task, values in found["results"].items():
        for name, value in values.items():
            metric, _, form = name.partition(",")  # "acc_norm,none"
            if form and not metric.endswith("_stderr"):
                error = values.get(f"{metric}_stderr,{form}")
                label = metric if form == "none" else f"{metric} ({form})"
                rows.append([task, label, value, error])
    table = pd.DataFrame(rows, columns=["task", "metric", "value", "error"])
    return table.assign(error=pd.to_numeric(table["error"], errors="coerce"))
