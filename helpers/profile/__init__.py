"""What it costs now: parameters, bytes, peak memory, seconds, money.

Read `costs` (what can be counted), then `speed` (what has to be timed). What *will* be
needed, before anything is loaded, is computed in `helpers.memory`.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "costs": [
            "Machine",
            "api_cost",
            "disk_bytes",
            "gpu_record",
            "parameters",
            "peak_memory",
            "weight_bytes",
        ],
        "speed": [
            "concurrency",
            "first_token",
            "latency",
            "ratio",
            "speed_up",
            "spread",
            "throughput",
            "users_served",
        ],
    },
)
