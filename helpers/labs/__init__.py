"""What instructors use: the learners' copies, their checks, the grading of a class.

Read `checks` (what labs call, a module each), `copies` (`python -m helpers.labs`), then
`grade` (`python -m helpers.grade`) with `grading` (its sandbox and books).
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "checks": [
            "Mistake",
            "NotAnswered",
            "close",
            "question",
            "that",
            "lab01",
            "lab02",
            "lab03",
            "lab04",
            "lab05",
            "lab06",
            "lab07",
        ],
    },
)
