"""Errors are sent between processes and copied with all their fields."""

from __future__ import annotations

import copy
import inspect
import pickle
from collections.abc import Callable
from typing import Any

import pytest

from extmem import errors
from extmem.rules import Violation

BROKEN = (Violation("VUID-a", "a.b", "is 3", "make it 4"),)
FIELDS: dict[str, Any] = {
    "violations": BROKEN,
    "command": "vkAllocateMemory",
    "requires_one_of": ("procfs",),
    "result": -10,
    "devices": ("one",),
    "ntstatus": 0xC0000034,
    "winerror": 2,
    "value": 5,
    "reached": 3,
    "holders": ("a reader",),
    "first": 4,
    "count": 2,
    "pid": 77,
    "closed": True,
}
KINDS = [kind for name in errors.__all__ if issubclass(kind := getattr(errors, name), errors.ExtmemError)]


def made(kind: type[errors.ExtmemError]) -> errors.ExtmemError:
    """Return one with each of its fields."""
    own = kind.__init__
    fields = {
        name: FIELDS[name]
        for name, parameter in (inspect.signature(own).parameters.items() if inspect.isfunction(own) else ())
        if parameter.kind is parameter.KEYWORD_ONLY
    }
    return kind(BROKEN if kind is errors.RuleViolation else "what happened", **fields)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("again", [copy.copy, copy.deepcopy, lambda error: pickle.loads(pickle.dumps(error))])
def test_an_error_arrives_whole(kind: type[errors.ExtmemError], again: Callable[[Any], Any]) -> None:
    error = made(kind)
    error.add_note("while a test ran")
    other = again(error)
    assert type(other) is kind and other is not error
    assert str(other) == str(error) and other.args == error.args and vars(other) == vars(error)


def test_so_does_one_of_a_class_that_a_program_has_made() -> None:
    error = OwnError(7)
    other = pickle.loads(pickle.dumps(error))
    assert type(other) is OwnError and other.number == 7 and str(other) == str(error)


class OwnError(errors.NameNotFoundError):
    def __init__(self, number: int) -> None:
        super().__init__(f"number {number} is not there", ntstatus=0xC0000034, winerror=2)
        self.number = number
