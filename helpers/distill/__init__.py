"""All of it as one: in two calls, or as the command `python -m helpers.distill`.

Read `pipeline` (the two calls), `command` (the options), `settings` (what a run depends
on), `run` (generate -> filter -> cache -> train -> evaluate -> report), `material` (the
data of a run), `long_run` (its training), `crew` (several processes), `report`.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "pipeline": ["distil", "teacher_rows"],
        "run": ["Outcome", "Run"],
        "settings": ["RunError", "Settings"],
        "material": ["ANSWER_KEYS", "FORMAT", "PROMPT_KEYS", "as_chat"],
    },
)
