"""The helpdesk: a small online shop, endless requests to it, and who is right.

The world writes examples of five tasks and says whether an answer is right, in whatever
words. Everything else in the course is measured in it.

Read `shops` (what is sold and done there), `phrases` (how people say it), `tasks` (one
writer a task), `verifier` (the facts of an answer), then `helpdesk` (splits, noise).
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "helpdesk": ["examples"],
        "verifier": [
            "LABELS",
            "SPLITS",
            "TASKS",
            "Example",
            "Fact",
            "facts_in",
            "missing_and_wrong",
            "verify",
        ],
        "tasks": ["reading"],
        "shops": ["NAMES", "OTHER_SHOPS", "OUR_SHOP", "SHIFTED_NAMES", "Shop"],
        "phrases": ["PHRASES"],
    },
)
