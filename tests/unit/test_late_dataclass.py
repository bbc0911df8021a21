"""`late_dataclass` against the decorator of the standard library, on the same classes."""

from __future__ import annotations

import copy
import dataclasses
import inspect
import pickle
import threading
from typing import Any, ClassVar

import pytest

from extmem import late_dataclass

DEFAULT = [1]


@late_dataclass.dataclass(frozen=True, slots=True)
class Frozen:
    """One that cannot change."""

    kind: ClassVar[str] = "frozen"
    number: int
    text: str = "a"
    parts: list[int] = late_dataclass.field(default_factory=list)

    @property
    def double(self) -> int:
        """Twice the number."""
        return 2 * self.number


@dataclasses.dataclass(frozen=True, slots=True)
class StandardFrozen:
    """The same by the standard library."""

    kind: ClassVar[str] = "frozen"
    number: int
    text: str = "a"
    parts: list[int] = dataclasses.field(default_factory=list)


@late_dataclass.dataclass(slots=True)
class Changing:
    """One that can change, and completes itself."""

    number: int = 0

    def __post_init__(self) -> None:
        self.number += 1


@late_dataclass.dataclass(slots=True)
class Derived(Changing):
    """One with a base."""

    more: str = "more"


def test_objects_have_their_values_and_defaults() -> None:
    one = Frozen(3)
    assert (one.number, one.text, one.parts, one.double, one.kind) == (3, "a", [], 6, "frozen")
    assert Frozen(3).parts is not one.parts
    assert Frozen(1, "b", DEFAULT).parts is DEFAULT
    assert (Changing().number, Changing(4).number, Derived(4, "x").more, Derived().number) == (1, 5, "x", 1)


@pytest.mark.parametrize("values", [(1,), (1, "b"), (1, "b", [2])])
def test_text_equality_and_signature_are_those_of_the_standard_library(values: tuple[Any, ...]) -> None:
    ours, theirs = Frozen(*values), StandardFrozen(*values)
    assert repr(ours) == repr(theirs).removeprefix("Standard")
    assert ours == Frozen(*values) and ours != theirs and ours != Frozen(9)
    assert list(inspect.signature(Frozen).parameters) == list(inspect.signature(StandardFrozen).parameters)
    assert dataclasses.asdict(ours) == dataclasses.asdict(theirs)  # type: ignore[call-overload, unused-ignore]
    assert [one.name for one in dataclasses.fields(ours)] == [one.name for one in dataclasses.fields(theirs)]
    assert Frozen.__match_args__ == StandardFrozen.__match_args__


def test_hashes_follow_equality_and_what_changes_has_none() -> None:
    assert hash(Frozen(1, parts=())) == hash(Frozen(1, parts=()))  # type: ignore[arg-type]
    assert len({Frozen(1, parts=()), Frozen(2, parts=())}) == 2  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="unhashable"):
        hash(Changing())


def test_a_frozen_object_refuses_changes_and_another_takes_them() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError, match="cannot assign to field 'number'"):
        Frozen(1).number = 2  # type: ignore[misc]
    with pytest.raises(dataclasses.FrozenInstanceError, match="cannot delete field 'number'"):
        del Frozen(1).number
    one = Changing()
    one.number = 7
    assert one == Changing(6)
    with pytest.raises(AttributeError):
        one.other = 1  # type: ignore[attr-defined]


def test_copies_and_pickles_are_equal() -> None:
    for one in (Frozen(1, "b", [2]), Changing(3)):
        assert copy.copy(one) == one == pickle.loads(pickle.dumps(one))
    assert late_dataclass.replace(Frozen(1, "b"), number=2) == dataclasses.replace(Frozen(1, "b"), number=2)
    with pytest.raises(TypeError, match="unexpected keyword argument 'other'"):
        late_dataclass.replace(Frozen(1), other=2)  # type: ignore[call-arg, unused-ignore]


def test_wrong_arguments_are_refused_as_by_any_function() -> None:
    with pytest.raises(TypeError, match="missing 1 required positional argument: 'number'"):
        Frozen()  # type: ignore[call-arg]
    with pytest.raises(TypeError, match="slots=True"):
        late_dataclass.dataclass(slots=False)


def test_the_first_objects_may_be_made_by_several_threads() -> None:
    @late_dataclass.dataclass(slots=True)
    class Local:
        """Used by the threads only."""

        number: int

    barrier = threading.Barrier(8)
    made: list[Local] = []

    def make(number: int) -> None:
        barrier.wait(30)
        made.append(Local(number))

    threads = [threading.Thread(target=make, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert sorted(one.number for one in made) == list(range(8))
