"""What was kept: right answers, likelihood, calibration, and how sure one can be.

Read `intervals` (every number comes with one), `scoring` (right or wrong, by task),
`metrics` (of texts), `likelihood` (what it holds likely), `calibration` (does it know
when it is right), `judge` (a model that compares), `table` (all of it in one report),
`harness` (public benchmarks).
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "intervals": [
            "Interval",
            "McNemar",
            "accuracy",
            "bootstrap",
            "mcnemar",
            "over_seeds",
            "ratio_of_means",
            "retention",
        ],
        "scoring": [
            "Answerer",
            "Item",
            "Question",
            "accepted",
            "by_task",
            "compare",
            "item_of",
            "paired",
            "score",
            "students_of",
        ],
        "metrics": [
            "Bleu",
            "bleu",
            "exact_match",
            "normalise",
            "rouge_l",
            "text_scores",
            "token_f1",
        ],
        "likelihood": ["agreement", "nll", "token_scores"],
        "calibration": ["answer_confidence", "ece", "reliability"],
        "judge": ["judge_pairs", "position_bias", "win_rate"],
        "table": ["METRICS", "Report", "report", "summarise"],
        "harness": ["lm_eval_scores"],
    },
)
