"""Does it fit? What a model, a step and an answer need, before anything is loaded.

Read `ledger` (the arithmetic), then `verdicts` (a GPU and a ledger: does it fit, and
what to change where it does not). `model_facts.toml` holds the sizes of real models.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "ledger": [
            "GIB",
            "Ledger",
            "Shape",
            "Step",
            "facts",
            "generating",
            "kv_cache",
            "shape",
            "step_flops",
            "training",
            "weights",
        ],
        "verdicts": ["MemoryShortage", "Verdict", "fits", "shortage", "stages"],
    },
)
