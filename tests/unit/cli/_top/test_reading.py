"""Looks at the object manager: what they find with and without a broker, and how often they come."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import Any

import pytest

from extmem.cli._top import reading
from extmem.cli._top.items import Subject
from extmem.cli._top.model import Look, State
from extmem.cli._top.reading import NO_BROKER, NO_OWN_BROKER, Reading, look, pause_after
from extmem.errors import PeerGoneError
from extmem.manager import BrokerStatus
from extmem.testing.waiting import wait_until
from tests.top_looks import CHANNEL, memory, process
from tests.top_looks import look as found_at

STATUS = BrokerStatus(7, 4, "socket", 60.0, 2, 1, 1, 0, 0, 0, 0, 0, 0, 0.0)


class FakeManager:
    """An object manager whose answers the test sets."""

    def __init__(self) -> None:
        self.has_broker = True
        self.answer: BrokerStatus | None | Exception = STATUS
        self.others: list[str] = []
        self.holds_payloads = False
        self.calls: list[str] = []

    def status(self) -> BrokerStatus | None:
        self.calls.append("status")
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer

    def snapshot(self) -> list[Any]:
        self.calls.append("snapshot")
        return [memory(1, "frames")]

    def other_brokers(self) -> list[str]:
        return self.others

    def disconnect(self) -> None:
        self.calls.append("disconnect")


@pytest.fixture
def manager(monkeypatch: pytest.MonkeyPatch) -> FakeManager:
    made = FakeManager()
    monkeypatch.setattr(reading, "manager", lambda: made)
    return made


def test_a_look_finds_the_broker_and_what_is_shared(manager: FakeManager) -> None:
    found = look(lambda rows: [CHANNEL] * len(rows))
    assert [row.payload for row in found.rows] == [1] and found.channels == [CHANNEL]
    assert found.broker is not None and (found.broker.pid, found.broker.clients) == (7, 2)
    assert (found.missing, found.error) == ("", None) and manager.calls == ["status", "snapshot"]
    assert look().channels is None


def test_no_broker_is_asked_for_a_snapshot_which_would_start_it(manager: FakeManager) -> None:
    manager.answer = None
    assert (look().missing, look().rows) == (NO_BROKER, ())
    manager.others = ["another"]
    assert look().missing == NO_OWN_BROKER
    assert "snapshot" not in manager.calls


def test_a_broker_with_nothing_keeps_no_connection_of_this_process(manager: FakeManager) -> None:
    manager.answer = BrokerStatus(7, 4, "socket", 60.0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0.0)
    assert look().rows == () and manager.calls == ["status", "disconnect"]
    manager.holds_payloads = True  # of a program that uses this module beside its own memory
    look()
    assert manager.calls == ["status", "disconnect", "status"]


def test_where_the_kernel_is_the_object_manager_no_broker_is_asked(manager: FakeManager) -> None:
    manager.has_broker = False
    assert look().broker is None and manager.calls == ["snapshot"]


@pytest.mark.parametrize("error", [PeerGoneError("no answer; try again"), ConnectionResetError("reset")])
def test_an_error_is_what_the_look_has_found(manager: FakeManager, error: Exception) -> None:
    manager.answer = error
    assert look().error is error


def test_pauses_bound_the_share_of_the_time(manager: FakeManager) -> None:
    assert (pause_after(0.001, 1.0), pause_after(2.0, 1.0)) == (1.0, 8.0)


# the thread


class Looks:
    """Looks that the test lets go one by one, and the states that come of them."""

    def __init__(self) -> None:
        self.begun, self._go = threading.Semaphore(0), threading.Semaphore(0)
        self.states: list[State | Exception] = []
        self.count = 0
        self.error: Exception | None = None

    def __call__(self) -> Look:
        self.count += 1
        self.begun.release()
        self._go.acquire()
        if self.error is not None:
            raise self.error
        return found_at(self.count, memory(self.count, f"n{self.count}"))

    def let_go(self) -> None:
        """Let one look end, and wait for its state."""
        before = len(self.states)
        self._go.release()
        wait_until(lambda: len(self.states) > before, "the state of a look")

    def begins(self) -> None:
        assert self.begun.acquire(timeout=100)


@pytest.fixture
def looks() -> Looks:
    return Looks()


@pytest.fixture
def thread(looks: Looks) -> Iterator[Reading]:
    made = Reading(looks.states.append, 0.001, looks, process)
    made.start()
    yield made
    made.stop()
    looks._go.release(10)


def names(state: State | Exception) -> list[str]:
    assert isinstance(state, State)
    return [row.item.name for row in state.rows[Subject.PAYLOADS]]


def test_the_thread_looks_again_and_again(looks: Looks, thread: Reading) -> None:
    looks.let_go()
    looks.let_go()
    assert (names(looks.states[0]), names(looks.states[1])[0]) == (["n1"], "n2")


def test_a_look_that_lasts_is_known_while_it_lasts(looks: Looks, thread: Reading) -> None:
    looks.begins()
    wait_until(lambda: thread.asking_for > 0, "a look to last")
    thread.pause(True)
    looks.let_go()
    wait_until(lambda: thread.asking_for == 0, "the look to end")


def test_a_paused_thread_begins_no_look_and_begins_at_once_afterwards(looks: Looks, thread: Reading) -> None:
    looks.begins()
    thread.pause(True)
    looks.let_go()
    assert not looks.begun.acquire(timeout=0.05)
    thread.pause(False)
    looks.begins()


def test_a_stopped_thread_is_not_waited_for(looks: Looks, thread: Reading) -> None:
    looks.begins()
    thread.stop()
    looks._go.release()
    wait_until(lambda: not thread._thread.is_alive(), "the thread to end")
    assert not looks.states


def test_the_thread_ends_with_the_error_that_it_shows(looks: Looks, thread: Reading) -> None:
    looks.error = ZeroDivisionError("a bug")
    looks.let_go()
    assert looks.states == [looks.error]
    wait_until(lambda: not thread._thread.is_alive(), "the thread to end")
