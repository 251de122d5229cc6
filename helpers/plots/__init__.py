"""Every figure of the course: one function each, one style, one colour per role.

Read `base` first: style, colours, how a figure is shown, and the marks that several
share. Every other module has the name of the notebook that shows its figures, the first
one where several do: `start_here`, `why_distil`, `synthetic_data`, `data_quality`,
`soft_targets`, `training_the_student`, `lora`, `evaluation`, `the_expensive_teacher`,
`hyperparameters`, `case_study`. What only labs show is in `labs`.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "base": ["COLOURS", "png", "show", "show_slider", "use_style"],
        "start_here": ["course_map"],
        "why_distil": [
            "cache_growth",
            "decode_speed",
            "deployments",
            "pairs",
            "price_and_energy",
            "retention_without_n",
            "weights_and_memory",
        ],
        "synthetic_data": ["batch_speed", "best_of", "bills", "sampling"],
        "data_quality": ["funnel", "three_seeds", "vote_confidence"],
        "soft_targets": [
            "digit_row",
            "divergences",
            "gradient_norms",
            "next_token_bars",
            "precision",
            "temperature_bars",
            "two_peaks",
            "withheld_digit",
        ],
        "training_the_student": [
            "budgets",
            "divergence_kinds",
            "draws_needed",
            "hesitation",
            "loss_curves",
            "right_and_alike",
            "token_labels",
        ],
        "lora": [
            "accuracy_bars",
            "memory_ledger",
            "rank_error",
            "recorded_lora",
            "rounded_update",
            "starts",
            "step_memory",
        ],
        "evaluation": [
            "agreement_and_accuracy",
            "kept_and_saved",
            "load",
            "ratios",
            "reliability",
            "scores",
            "small_samples",
            "two_numbers",
        ],
        "the_expensive_teacher": [
            "cache_sizes",
            "cache_students",
            "head_memory",
            "passes",
            "recorded_heads",
            "tail_treatments",
        ],
        "hyperparameters": [
            "batch_sizes",
            "first_step",
            "gradient_noise",
            "knob_map",
            "learning_rates",
            "optimism",
            "over_fitting",
            "progress",
            "ways_to_search",
        ],
        "case_study": ["METHODS", "accuracy_by_task", "claims", "labels_or_teacher"],
        "labs": ["bug_curves", "kept_mass"],
    },
)
