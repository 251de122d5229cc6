"""Which rows are worth training on: rules, the funnel they make, the choice of answers.

    def polite(row):
        return "" if "please" in data.answer_of(row).lower() else "impolite"

    result = funnel(rows, {"length": length(3, 60), "polite": polite})
    result.kept, result.dropped, result.table

Read `base` (what a rule and a funnel are), `rules`, `overlap` (duplicates, leaks), then
`choice` (one answer out of several).
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "base": ["Funnel", "Rule", "RuleError", "funnel", "over_rows", "reasons"],
        "rules": [
            "REFUSALS",
            "balance",
            "judged",
            "language",
            "length",
            "refusal",
            "repetition",
            "truncated",
            "verified",
        ],
        "overlap": ["decontaminate", "diversity", "matches", "near_duplicates"],
        "choice": ["best_of_n", "last_number", "majority_vote"],
    },
)
