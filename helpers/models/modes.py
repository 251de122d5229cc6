"""A model in eval mode for a while."""

from collections.abc import Iterator
from contextlib import contextmanager

from transformers import PreTrainedModel


@contextmanager
def eval_mode(model: PreTrainedModel) -> Iterator[None]:
    """The model without dropout; afterwards in the mode it had, come what may."""
    was_training = model.training
    model.eval()
    try:
        yield
    finally:
        model.train(was_training)
