"""Answers that a lab must reject, each with its message, and others it must accept.

A module a lab, `lab02.py`, with the lists `WRONG` and `RIGHT`. The code of an answer
takes the place of a whole solution cell; everything else is the master's. `QUICK` may
replace cells that take long and on which no answer depends, grade_id -> code.
"""

from typing import NamedTuple


class Wrong(NamedTuple):
    """`check`, the grade_id of a graded cell, must fail with `says` in its message."""

    name: str
    cell: str  # grade_id of the solution cell that the code replaces
    code: str
    check: str
    says: str


class Right(NamedTuple):
    name: str
    cell: str
    code: str
