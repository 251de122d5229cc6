"""How a check speaks: it names the mistake that was probably made.

Each check is a function marked with `question`, and looks at an answer with `close` (a
number or tensor, held against what the known mistakes would give) and `that` (anything
else).
"""

import functools
import sys
import traceback
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor

Number = Tensor | float | int | Sequence
HELPERS = str(Path(__file__).parents[2])
INSTALLED = (HELPERS, sys.prefix, sys.base_prefix)  # code that is not the learner's


class Mistake(AssertionError):
    """An answer is wrong; the message names the probable cause."""

    def _render_traceback_(self) -> list[str]:
        """What Jupyter shows: the message, and lines of the learner's that raised."""
        steps = traceback.extract_tb(self.__cause__ and self.__cause__.__traceback__)
        lines = [
            f"  in {step.name}, line {step.lineno}: {step.line}"
            for step in steps
            if step.name != "<module>" and not step.filename.startswith(INSTALLED)
        ]
        return [*lines, f"{type(self).__name__}: {self}"]


class NotAnswered(Mistake):
    """The question still holds what the lab came with."""


def question(name: str, hint: str) -> Callable[[Callable], Callable]:
    """Mark a check. What goes wrong inside becomes a `Mistake` that begins with `name`.

    An untouched question (NotImplementedError, or None where an answer should be) gives
    the `hint`; an exception in the learner's code is named, with its message.
    """

    def mark(check: Callable) -> Callable:
        @functools.wraps(check)
        def checked(*args, **kwargs):
            __tracebackhide__ = True  # a learner needs the message, not our frames
            try:
                if any(value is None for value in (*args, *kwargs.values())):
                    raise NotAnswered(f"not answered yet. {hint}")
                check(*args, **kwargs)
            except NotImplementedError:
                raise NotAnswered(f"{name}: not answered yet. {hint}") from None
            except Mistake as mistake:
                raise type(mistake)(f"{name}: {mistake}") from None
            except Exception as error:
                kind = type(error).__name__
                raise Mistake(f"{name}: your code raised {kind}: {error}") from error
            print(f"{name}: right")

        return checked

    return mark


def that(condition: object, message: str) -> None:
    """Raise `Mistake(message)` unless the condition holds."""
    __tracebackhide__ = True
    if not condition:
        raise Mistake(message)


def close(
    yours: Number,
    expected: Number,
    mistakes: Mapping[str, Number | None] | None = None,
    *,
    otherwise: str = "",
    rtol: float = 1e-4,
    atol: float = 1e-6,
) -> None:
    """Compare an answer with the expected one; no type or shape is taken for granted.

    `mistakes` maps a message to what that mistake would give here: the first whose
    value the answer has is the diagnosis, else `otherwise` is said. Choose inputs for
    which no mistake gives the expected value; mistakes that do are skipped.
    """
    __tracebackhide__ = True
    expected = _tensor(expected)
    if yours is None or yours is NotImplemented:
        raise NotAnswered("your function returned nothing: is the `return` missing?")
    try:
        answer = _tensor(yours)
    except (TypeError, ValueError, RuntimeError):
        raise Mistake(
            f"a number or tensor was expected, not {type(yours).__name__}"
        ) from None
    alike = functools.partial(_alike, rtol=rtol, atol=atol)
    if alike(answer, expected):
        return
    for message, value in (mistakes or {}).items():
        if value is not None and not alike(_tensor(value), expected):
            if alike(answer, _tensor(value)):
                raise Mistake(message)
    if answer.shape != expected.shape:
        shapes = f"{tuple(answer.shape)}, and {tuple(expected.shape)} was expected"
        raise Mistake(f"the shape is {shapes}. {otherwise}".rstrip())
    if not torch.isfinite(answer).all():
        raise Mistake(f"the answer holds {_short(answer)}. {otherwise}".rstrip())
    raise Mistake(
        f"the answer is {_short(answer)}, and {_short(expected)} was expected. "
        f"{otherwise}".rstrip()
    )


def _tensor(value: Number) -> Tensor:
    if isinstance(value, Tensor):
        with torch._C.DisableTorchFunctionSubclass():  # no method of a subclass counts
            plain = Tensor.detach(value).as_subclass(Tensor)
        return plain.to("cpu", torch.float64)
    return torch.as_tensor(value, dtype=torch.float64)


def _alike(a: Tensor, b: Tensor, rtol: float, atol: float) -> bool:
    return a.shape == b.shape and torch.allclose(a, b, rtol, atol, equal_nan=True)


def _short(value: Tensor) -> str:
    """A number, or the first few of many, as a learner wants to read them."""
    if value.numel() == 1:
        return f"{value.item():.4g}"
    shown = ", ".join(f"{x:.4g}" for x in value.flatten()[:4].tolist())
    return f"[{shown}{', ...' if value.numel() > 4 else ''}]"
