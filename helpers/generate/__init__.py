"""Stage 1: the teacher speaks, and every answer is on disk as soon as it exists.

Read `teachers` (who can be asked), `answers` (the stage), `decoding` (the loop behind a
local teacher), `budget` (tokens and money), `asking` (a few questions, no data set),
`api` (a teacher behind an address), `server` (such an address on this machine).
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "teachers": [
            "LocalTeacher",
            "Reply",
            "Request",
            "Sampling",
            "Teacher",
            "answer",
            "seed_of",
        ],
        "answers": ["generate_answers"],
        "asking": ["ask", "turns_of"],
        "decoding": ["decode"],
        "budget": ["Budget", "BudgetSpent", "Prices", "Usage", "usage_of"],
        "api": ["ApiTeacher", "TeacherError"],
        "server": ["Server", "serve"],
    },
)
