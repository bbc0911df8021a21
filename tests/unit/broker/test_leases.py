"""Who may update a payload, and who is next; and the broker's pipes of leases."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from extmem import wire
from extmem.broker.leases import Ended, Leases
from extmem.objects import Refused, Status
from tests.unit.broker.test_open_cache import World


def test_leases_are_given_in_their_order() -> None:
    leases = Leases()
    assert leases.enter("page", 5, 1, 1, 100)
    assert not leases.enter("page", 5, 2, 2, 200) and not leases.enter("page", 5, 1, 3, 100)
    assert leases.enter("other", 6, 2, 4, 200)
    assert leases.leave(1, 1) == Ended(5, 100, True, (2, 2))
    assert leases.leave(2, 2) == Ended(5, 200, True, (1, 3))
    assert leases.leave(1, 3) == Ended(5, 100, True, None)
    assert leases.enter("page", 5, 3, 5, 300) and len(leases) == 2


def test_one_that_stops_waiting_changes_nothing_for_the_others() -> None:
    leases = Leases()
    for number in (1, 2, 3):
        leases.enter("page", 5, number, number, 0)
    assert leases.leave(2, 2) == Ended(5, 0, False, None)
    assert leases.leave(1, 1) == Ended(5, 0, True, (3, 3))
    assert leases.leave(1, 1) is None and leases.leave(9, 9) is None


@pytest.fixture
def world() -> Iterator[World]:
    made = World(quick=False)
    yield made
    made.close()


def test_a_lease_of_a_reference_that_the_process_does_not_hold_is_refused(world: World) -> None:
    fds = len(os.listdir("/proc/self/fd"))
    with pytest.raises(Refused) as refusal:
        world.dispatch.answer(world.sessions[0], wire.Lease(12345), ())
    assert refusal.value.status is Status.INVALID_HANDLE
    assert len(os.listdir("/proc/self/fd")) == fds and len(world.dispatch.leases) == 0
