"""How long offers last: time and ends of processes, with the real model."""

from __future__ import annotations

import os
import select
import subprocess
import sys
from collections.abc import Iterator
from itertools import count
from random import Random

import pytest

from extmem.broker.tickets import SECONDS, Tickets
from extmem.objects import Refused, Share, Token
from extmem.sharing.payload import OwnedFd
from tests.described_manager import DescribedManager

TOKEN = Token(1000, 1000, frozenset())


class World:
    def __init__(self) -> None:
        self.model = DescribedManager(random=Random(1).randrange)
        self.sender = self.model.attach(TOKEN, 1)
        self.receiver = self.model.attach(TOKEN, 2)
        self.tickets = Tickets(self.model)
        self._inodes = count(1)

    def offer(self, now: float = 0.0) -> int:
        """Return a ticket for memory that nothing else keeps alive."""
        made = self.model.export(
            self.sender,
            ((1, next(self._inodes)),),
            b"",
            share=Share.NT,
            name=None,
            access=1 << 28,
            sddl=None,
            inherit=False,
        )
        ticket = self.model.offer(self.sender, reference=made.reference)
        self.model.release(self.sender, made.reference)
        self.tickets.offered(ticket, self.sender, now)
        return ticket

    def bind(self, ticket: int, pid: int, sender: int | None = None) -> int | None:
        return self.tickets.bind(ticket, OwnedFd(os.pidfd_open(pid)), self.sender if sender is None else sender)

    def claimable(self, ticket: int) -> bool:
        try:
            self.model.claim(self.receiver, ticket)
        except Refused:
            return False
        return True


@pytest.fixture
def world() -> Iterator[World]:
    made = World()
    yield made
    made.tickets.close()


@pytest.fixture
def child() -> Iterator[subprocess.Popen[bytes]]:
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as process:
        yield process
        process.kill()


def finish(steps: Iterator[None]) -> None:
    for _ in steps:
        pass


def died(pidfd: int) -> bool:
    waiting = select.poll()
    waiting.register(pidfd, select.POLLIN)
    return bool(waiting.poll(10_000))


def test_an_offer_holds_for_a_minute(world: World) -> None:
    ticket = world.offer()
    world.tickets.expire(SECONDS - 1)
    assert world.claimable(ticket)


def test_after_a_minute_it_keeps_nothing_alive(world: World) -> None:
    ticket = world.offer()
    assert world.tickets.next_deadline == SECONDS
    world.tickets.expire(SECONDS)
    assert not world.claimable(ticket) and world.tickets.next_deadline is None
    assert world.model.counts()["payloads"] == 0


def test_a_bound_one_outlasts_the_minute(world: World, child: subprocess.Popen[bytes]) -> None:
    ticket = world.offer()
    assert world.bind(ticket, child.pid) is not None
    world.tickets.expire(SECONDS)
    assert world.claimable(ticket)


def test_a_death_withdraws_what_was_for_the_dead(world: World, child: subprocess.Popen[bytes]) -> None:
    ticket, other = world.offer(), world.offer()
    pidfd = world.bind(ticket, child.pid)
    assert pidfd is not None and pidfd in world.tickets._watched
    child.kill()
    assert died(pidfd)
    finish(world.tickets.died(pidfd))
    assert not world.claimable(ticket) and world.claimable(other) and pidfd not in world.tickets._watched


def test_one_process_is_watched_once_for_many_tickets(world: World, child: subprocess.Popen[bytes]) -> None:
    first, second = world.offer(), world.offer()
    pidfd = world.bind(first, child.pid)
    assert pidfd is not None and world.bind(second, child.pid) is None
    world.tickets.done(first)
    assert pidfd in world.tickets._watched
    world.tickets.done(second)
    assert pidfd not in world.tickets._watched


def test_binding_again_is_to_the_new_process(world: World, child: subprocess.Popen[bytes]) -> None:
    ticket = world.offer()
    pidfd = world.bind(ticket, child.pid)
    assert pidfd is not None and world.bind(ticket, os.getpid()) is not None
    assert world.claimable(ticket)


def test_a_process_that_has_ended_is_noticed_at_once(world: World, child: subprocess.Popen[bytes]) -> None:
    ticket = world.offer()
    child.kill()
    pidfd = OwnedFd(os.pidfd_open(child.pid))
    child.wait()
    fresh = world.tickets.bind(ticket, pidfd, world.sender)
    assert fresh is not None and died(fresh)
    finish(world.tickets.died(fresh))
    assert not world.claimable(ticket)


def test_what_is_of_no_process_is_refused(world: World) -> None:
    ticket = world.offer()
    for make in (lambda: os.open("/dev/null", os.O_RDONLY), lambda: os.memfd_create("x"), lambda: os.eventfd(0)):
        with pytest.raises(Refused, match="not a pidfd"):
            world.tickets.bind(ticket, OwnedFd(make()), world.sender)
    assert world.claimable(ticket)


def test_only_the_sender_binds_and_only_what_is_in_flight(world: World) -> None:
    ticket = world.offer()
    for number, sender in ((ticket, world.receiver), (ticket + 1, world.sender)):
        with pytest.raises(Refused, match="not in flight"):
            world.bind(number, os.getpid(), sender)
    world.tickets.done(ticket)
    with pytest.raises(Refused, match="not in flight"):
        world.bind(ticket, os.getpid())


def test_a_death_after_the_senders_is_nothing(world: World, child: subprocess.Popen[bytes]) -> None:
    pidfd = world.bind(world.offer(), child.pid)
    assert pidfd is not None
    world.model.detach(world.sender)
    child.kill()
    assert died(pidfd)
    finish(world.tickets.died(pidfd))


def test_tickets_that_ended_leave_no_clocks_behind(world: World) -> None:
    for _ in range(500):
        world.tickets.done(world.offer())
    assert len(world.tickets._strong) < 200


def test_what_was_claimed_before_a_restart_is_remembered(world: World) -> None:
    world.tickets.claimed_before(5)
    assert world.tickets.was_claimed(5) and not world.tickets.was_claimed(6)
