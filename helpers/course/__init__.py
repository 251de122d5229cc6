"""Running and recording the course.

Read `series` (`python -m helpers.course`: the notebooks, executed in order), `record`
(`python -m helpers.record`: the long runs behind them), `knobs` (one of these),
`pretrain` with `curriculum` (`python -m helpers.pretrain`: the shipped models), `toy`
(a language model to see through).
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submodules=["toy"],
    submod_attrs={
        "series": ["CourseError", "keep_results", "read_results"],
        "record": ["FULL_LEARNING_RATE", "SEEDS"],
    },
)
