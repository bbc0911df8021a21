"""`late_named_tuple` against `typing.NamedTuple`, on the same classes."""

from __future__ import annotations

import copy
import pickle
import typing
from typing import Any, Generic, TypeVar

import pytest

from extmem.late_named_tuple import NamedTuple

T = TypeVar("T")


class Ours(NamedTuple):
    """A pair."""

    number: int
    text: str = "a"

    @property
    def double(self) -> int:
        """Twice the number."""
        return 2 * self.number


class Theirs(typing.NamedTuple):
    """A pair."""

    number: int
    text: str = "a"

    @property
    def double(self) -> int:
        """Twice the number."""
        return 2 * self.number


class Of(NamedTuple, Generic[T]):
    """Of any type."""

    value: T


def facts(kind: Any) -> list[object]:
    """Return what programs may see of a class and its objects."""
    one = kind(3)
    return [
        *(tuple(one), one.number, one.text, one.double, one == (3, "a"), hash(one), len(one), isinstance(one, tuple)),
        *(kind._fields, kind._field_defaults, kind.__match_args__, kind.__doc__, tuple(kind(number=1, text="b"))),
        *(repr(one).partition("(")[2], one._asdict(), tuple(one._replace(text="c")), tuple(kind._make((1, 2)))),
        *(copy.copy(one), pickle.loads(pickle.dumps(one)), pickle.loads(pickle.dumps(one)).__class__ is kind),
    ]


def test_classes_and_objects_are_as_those_of_the_standard_library() -> None:
    assert facts(Ours) == facts(Theirs)
    assert repr(Ours(1)) == "Ours(number=1, text='a')"
    match Ours(4, "z"):
        case Ours(number, text):
            assert (number, text) == (4, "z")


def test_a_generic_class_takes_an_argument() -> None:
    assert Of(3).value == 3
    assert typing.get_origin(Of[int]) is Of


@pytest.mark.parametrize("kind", [Ours, Theirs])
def test_wrong_arguments_are_refused(kind: Any) -> None:
    with pytest.raises(TypeError, match="missing 1 required positional argument: 'number'"):
        kind()
    with pytest.raises(TypeError, match="takes from 2 to 3 positional arguments"):
        kind(1, 2, 3)
    with pytest.raises(ValueError, match="other"):
        kind(1)._replace(other=2)
    with pytest.raises(TypeError):
        kind._make((1,))
    with pytest.raises(AttributeError):
        kind(1).number = 2
    with pytest.raises(AttributeError):
        kind(1).other = 2
