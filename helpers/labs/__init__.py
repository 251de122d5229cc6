"""What instructors use: the learners' copies, their checks, the grading of a class.

Read `checks` (what labs call, a module each), `copies` (`python -m helpers.labs`), then
`grading` (`python -m helpers.grade`).
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "checks": ["Mistake", "NotAnswered", "close", "lab01", "lab02", "lab03", "lab04", "lab05", "lab06", "lab07", "question", "that"],
        "copies": ["write_labs"],
    },
)
