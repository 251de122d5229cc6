"""Stage 2: the student learns from a teacher's signal, live or out of a cache.

Read `signals` (what a teacher says about a batch), `batching`, `loop` (`fit`, plain and
whole), `cache` with `cache_recorder`, `cache_codec` and `cache_files` (signals on
disk), `trainer` (the same loss for long runs), `tuning` (a search under a budget).
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "signals": ["LiveTeacher", "Signal", "TeacherMixture", "kept_logits"],
        "batching": ["batches", "epoch_batches"],
        "loop": ["History", "StopTraining", "Watch", "fit"],
        "cache": ["TeacherCache", "open_cache", "verify_cache", "write_cache"],
        "cache_files": ["CacheError"],
        "trainer": ["DistillationTrainer"],
        "tuning": [
            "pack_right",
            "reporting",
            "search",
            "search_cost",
            "steps_spent",
            "unpack_right",
        ],
    },
)
