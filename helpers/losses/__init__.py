"""What the student pays for: divergences, their sum with the hard loss, fused heads.

Pure functions of tensors: no model, no data, no state.

Read `positions` (the only place that shifts), `divergences`, `distillation` (the loss
of the course), `sparse` (a teacher of few tokens), `layers` (hidden states, attention),
then `fused`, which gives the same numbers without the logits.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "positions": ["reduce_tokens", "shift_and_mask"],
        "divergences": ["KINDS", "token_divergence"],
        "distillation": [
            "LossParts",
            "distillation_loss",
            "loss_parts",
            "mix_teachers",
        ],
        "sparse": ["TAILS", "SparseTargets", "sparse_divergence"],
        "layers": ["attention_loss", "hidden_state_loss"],
        "fused": [
            "CPU_BYTES",
            "GPU_BYTES",
            "linear_divergence",
            "linear_sparse_divergence",
        ],
    },
)
