"""Teachers and students: loaded, compared, adapted, saved.

Read `loading` (from a folder or the hub), `hub` (what can be wrong with it),
`vocabulary` (what two models share), `adapters` (LoRA), `adapter_files`
(LoRA on disk), `modes` (eval mode for a while).
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "loading": [
            "ChatModel",
            "check_pair",
            "end_tokens",
            "load",
            "load_student",
            "load_teacher",
            "name_of",
            "weights_hash",
        ],
        "hub": ["ModelError"],
        "vocabulary": [
            "TemplateMismatch",
            "VocabularyMismatch",
            "check_templates",
            "shared_vocab",
        ],
        "adapters": [
            "AdapterError",
            "adamw",
            "add_lora",
            "checkpoint",
            "in_4_bits",
            "merge",
        ],
        "adapter_files": ["list_adapters", "load_adapter", "save_adapter"],
        "modes": ["eval_mode"],
    },
)
