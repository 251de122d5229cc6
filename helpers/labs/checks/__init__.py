"""What labs call: each check says which mistake was probably made.

`base` is the mechanism, a module a lab holds its checks. Labs take both from
`helpers.labs`.
"""

from pathlib import Path

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submodules=[path.stem for path in Path(__file__).parent.glob("lab*.py")],
    submod_attrs={"base": ["Mistake", "NotAnswered", "close", "question", "that"]},
)
