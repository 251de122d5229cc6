"""Distilling language models: what the notebooks, the labs and the commands call.

One wing for each idea, in the order in which data flows: world, data, generate,
quality, train (with models, losses and memory), evaluate, profile; then distill, which
is all of it as one command. A wing's `__init__` says what it is for and in which order
to read it; `helpers/README.md` is the map.
"""

import logging

import lazy_loader

from .threads import bound_waiting

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submodules=[
        "course",
        "data",
        "distill",
        "evaluate",
        "generate",
        "labs",
        "losses",
        "memory",
        "models",
        "plots",
        "profile",
        "quality",
        "threads",
        "tracks",
        "train",
        "world",
    ],
)

bound_waiting()
# On some processors it reports at import that a faster kernel is not installed.
logging.getLogger("bitsandbytes").setLevel(logging.ERROR)
