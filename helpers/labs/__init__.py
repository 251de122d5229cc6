"""What instructors use: the learners' copies, their checks, the grading of a class.

Read `checks` (what labs call, a module each), `copies` (`python -m helpers.labs`), then
`grading` (`python -m helpers.grade`).
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
            *(f"lab{number:02}" for number in range(1, 8)),
        ],
    },
)
