"""Waits in slices, and waits for timelines of several devices, which take turns."""

from __future__ import annotations

from typing import Any

import pytest

from extmem.core import slices
from extmem.errors import PeerGoneError

MILLISECOND = 1_000_000


class Scripted:
    """A device and its backend: the results of its waits, in turn, the last one again and again."""

    def __init__(self, *answers: bool | type[Exception]) -> None:
        self.answers = list(answers)
        self.asked: list[int] = []

    @property
    def backend(self) -> Scripted:
        return self

    def wait_semaphores(self, waits: Any, *, any_of: bool, timeout_ns: int) -> bool:
        self.asked.append(timeout_ns)
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        if not isinstance(answer, bool):
            raise answer(f"the signaler of {waits} has ended")
        return answer


def wait(*devices: Scripted, any_of: bool, limit: int | None = MILLISECOND) -> bool:
    return slices.wait_for_devices({one: [(one, 1)] for one in devices}, limit, any_of=any_of)


def test_all_of_several_devices() -> None:
    slow = Scripted(False, False, True)
    assert wait(slow, Scripted(True), any_of=False, limit=None)
    assert len(slow.asked) == 3
    assert not wait(Scripted(True), Scripted(False), any_of=False)


def test_a_signaler_that_has_ended_is_noticed_while_another_device_is_waited_for() -> None:
    gone = Scripted(False, PeerGoneError)
    with pytest.raises(PeerGoneError):
        wait(Scripted(False), gone, any_of=False, limit=None)
    assert gone.asked == [0, 0]  # it is looked at, and the first is slept for


def test_any_of_several_devices() -> None:
    assert wait(Scripted(False), Scripted(False, True), any_of=True, limit=None)
    assert not wait(Scripted(False), Scripted(False), any_of=True)


def test_any_goes_on_while_the_signaler_of_one_is_left() -> None:
    assert wait(Scripted(PeerGoneError), Scripted(False, True), any_of=True, limit=None)
    assert not wait(Scripted(PeerGoneError), Scripted(False), any_of=True)
    with pytest.raises(PeerGoneError):
        wait(Scripted(PeerGoneError), Scripted(False, PeerGoneError), any_of=True, limit=None)


@pytest.mark.parametrize("any_of", [False, True])
def test_one_device_waits_by_itself_in_slices(any_of: bool) -> None:
    one = Scripted(False, True)
    assert wait(one, any_of=any_of, limit=None)
    assert one.asked == [slices.SLICE_NS, slices.SLICE_NS]
    with pytest.raises(PeerGoneError):
        wait(Scripted(PeerGoneError), any_of=any_of)
