"""Serving a crowd: a few at a time, nobody forgotten, nobody waited for who does not come back."""

from __future__ import annotations

import select
import socket
from collections import Counter
from collections.abc import Iterator

import pytest

from extmem.broker import crowd as subject
from extmem.broker.crowd import WHILE, Crowd
from extmem.broker.sessions import Session

IN = int(select.EPOLLIN)


class Club:
    """Clients, and a turn that takes one message. A client that is keen writes the next one as soon as it is served."""

    def __init__(self, size: int, room: int, keen: int = 0) -> None:
        self.sessions: dict[int, Session] = {}
        self.peers: dict[int, socket.socket] = {}
        self.wants: Counter[int] = Counter()
        self.served: list[int] = []
        self.others: list[int] = []
        for _ in range(size):
            ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
            session = Session(ours, 0.0)
            self.sessions[session.fd] = session
            self.peers[session.fd] = theirs
        for fd in list(self.sessions)[:keen]:
            self.wants[fd] = 10 * WHILE
        self.crowd = Crowd(self.sessions, self.turn, room)

    def turn(self, session: Session, event: int) -> None:
        assert session.sock.recv(16) == b"please" and event & IN
        self.served.append(session.fd)
        if self.wants[session.fd]:
            self.wants[session.fd] -= 1
            self.ask(session.fd)

    def ask(self, *fds: int) -> None:
        for fd in fds:
            self.peers[fd].send(b"please")

    def waiting(self) -> list[tuple[int, int]]:
        with select.epoll() as epoll:
            for fd in self.sessions:
                epoll.register(fd, IN)
            return epoll.poll(0)

    def round(self) -> list[int]:
        """Who was served in one."""
        self.served.clear()
        self.crowd.serve(self.waiting(), self.others.append)
        return list(self.served)

    def close(self) -> None:
        for session in self.sessions.values():
            session.close()
        for peer in self.peers.values():
            peer.close()
        self.crowd.close()


@pytest.fixture
def clubs() -> Iterator[list[Club]]:
    made: list[Club] = []
    yield made
    for club in made:
        club.close()


def club(clubs: list[Club], size: int, room: int, keen: int = 0) -> Club:
    clubs.append(Club(size, room, keen))
    return clubs[-1]


@pytest.fixture(autouse=True)
def no_clock(monkeypatch: pytest.MonkeyPatch) -> None:
    """Rounds end when nobody waits, not by the clock."""
    monkeypatch.setattr(subject, "ROUND", 3600.0)


def test_more_than_can_run_are_a_crowd(clubs: list[Club]) -> None:
    crowd = club(clubs, 1, room=3).crowd
    assert [crowd.gathers(waiting) for waiting in (1, 4, 5, 64)] == [False, False, True, True]


def test_everybody_who_waits_is_served_once_if_nobody_comes_back(clubs: list[Club]) -> None:
    them = club(clubs, 12, room=3)
    them.ask(*them.sessions)
    assert sorted(them.round()) == sorted(them.sessions)
    assert not them.waiting()


def test_who_comes_back_is_answered_again_at_once_and_not_for_ever(clubs: list[Club]) -> None:
    them = club(clubs, 6, room=2, keen=6)
    them.ask(*them.sessions)
    served = them.round()
    assert set(served) == set(them.sessions), "all have had their turn"
    counts = Counter(served)
    assert all(WHILE // 2 <= count <= WHILE + 1 for count in counts.values()), counts
    first = next(iter(counts))
    # Whoever comes first has had enough before the third is looked at: there is room for two.
    third = list(counts)[2]
    assert served.index(third) >= WHILE and first in served[:2]


def test_who_had_the_favour_least_lately_comes_first(clubs: list[Club], monkeypatch: pytest.MonkeyPatch) -> None:
    them = club(clubs, 9, room=2, keen=9)
    them.ask(*them.sessions)
    monkeypatch.setattr(subject, "ROUND", -1.0)  # each round has time for one
    order = [them.round()[0] for _ in range(18)]
    assert sorted(order[:9]) == sorted(them.sessions) and order[9:] == order[:9]


def test_who_does_not_come_back_is_not_waited_for_again_soon(
    clubs: list[Club], monkeypatch: pytest.MonkeyPatch
) -> None:
    them = club(clubs, 8, room=2)
    waits = []
    favour = Crowd._favour

    def counted(crowd: Crowd) -> None:
        waits.append(1)
        favour(crowd)

    monkeypatch.setattr(Crowd, "_favour", counted)
    per_round = []
    for _ in range(8):
        them.ask(*them.sessions)
        waits.clear()
        assert sorted(them.round()) == sorted(them.sessions)
        per_round.append(len(waits))
    assert per_round[0] == 4, "two at a time were waited for, in vain"
    assert per_round[1:3] == [0, 0] and per_round[3] == 4, "then nobody for two turns"
    assert per_round[4:] == [0, 0, 0, 0], "then for four"
    assert all(session.shyness == 4 for session in them.sessions.values())


def test_coming_back_once_wins_the_patience_back(clubs: list[Club]) -> None:
    them = club(clubs, 4, room=2, keen=1)
    keen, *_ = them.sessions
    them.sessions[keen].shyness = 64
    them.ask(*them.sessions)
    them.round()
    assert them.sessions[keen].shyness == 1


def test_what_is_no_clients_goes_elsewhere(clubs: list[Club]) -> None:
    them = club(clubs, 2, room=1)
    them.ask(*them.sessions)
    events = [(999, IN), *them.waiting()]
    them.crowd.serve(events, them.others.append)
    assert them.others == [999] and sorted(them.served) == sorted(them.sessions)


def test_one_who_is_dropped_meanwhile_is_forgotten(clubs: list[Club]) -> None:
    them = club(clubs, 4, room=2, keen=4)
    gone = list(them.sessions)[1]
    serve = them.turn

    def turn(session: Session, event: int) -> None:
        serve(session, event)
        if len(them.served) == 5 and gone in them.sessions:
            them.sessions.pop(gone).close()

    them.crowd._turn = turn
    them.ask(*them.sessions)
    served = them.round()
    assert set(served) >= set(them.sessions) and served.count(gone) < WHILE
    assert not them.crowd._left


def test_one_who_reads_no_replies_loses_the_favour(clubs: list[Club]) -> None:
    them = club(clubs, 3, room=2, keen=3)
    deaf = next(iter(them.sessions))
    serve = them.turn

    def turn(session: Session, event: int) -> None:
        serve(session, event)
        if session.fd == deaf:
            session.parked = True

    them.crowd._turn = turn
    them.ask(*them.sessions)
    assert them.round().count(deaf) == 1


def test_an_error_leaves_nobody_favoured(clubs: list[Club]) -> None:
    them = club(clubs, 4, room=3)

    def turn(session: Session, event: int) -> None:
        raise RuntimeError("planted")

    serve, them.crowd._turn = them.crowd._turn, turn
    them.ask(*them.sessions)
    with pytest.raises(RuntimeError, match="planted"):
        them.round()
    assert not them.crowd._left
    them.crowd._turn = serve
    assert sorted(them.round()) == sorted(them.sessions), "and all can be served again"
