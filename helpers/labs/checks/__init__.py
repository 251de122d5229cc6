"""What labs call: each check says which mistake was probably made.

`base` is the mechanism, a module a lab holds its checks. Labs take both from
`helpers.labs`.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submodules=[f"lab{number:02}" for number in range(1, 8)],
    submod_attrs={"base": ["Mistake", "NotAnswered", "close", "question", "that"]},
)
