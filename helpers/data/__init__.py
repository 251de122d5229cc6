"""Chats and results: from files to rows to token ids, and numbers back into files.

Read `rows` (what a row is), `jsonl` (files of rows, every defect named), `tokens`
(ids, labels, batches), `text` (rows as words), `journal` (a file that survives a kill),
`results` (what was measured, with how to repeat it).
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "rows": ["DataError", "as_prompts", "to_chat"],
        "jsonl": ["iter_chat", "read_chat", "write_chat", "write_json"],
        "tokens": [
            "IGNORE_INDEX",
            "collate",
            "encode_chat",
            "need_template",
            "render_prompt",
            "tokenize_chat",
        ],
        "text": ["answer_of", "ngrams", "normalised", "prompt_of", "task_of", "words"],
        "journal": ["Journal"],
        "results": ["run_card", "write_results"],
    },
)
