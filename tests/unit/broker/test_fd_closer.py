"""Closing beside the loop: which clients are disconnected for it, and which not, however many fds they give."""

from __future__ import annotations

import os

import pytest

from extmem.broker.fd_closer import LIMIT, FdCloser
from extmem.testing.waiting import wait_until
from tests.unit.broker.test_fd_inspection import a_device, a_file, a_process, a_socket, memfd

MANY = 5 * LIMIT


@pytest.mark.parametrize("make", [memfd, a_process, a_device], ids=lambda make: make.__name__)
def test_what_clients_send_every_day_delay_no_client(make: object) -> None:
    """Closed fds are not counted, however slow the threads are."""
    assert callable(make)
    closer = FdCloser()
    made = [make() for _ in range(MANY)]
    places = {fd: os.fstat(fd).st_ino for fd in made}
    for fd in made:
        assert closer.dispose(fd, 1000) is False
        assert not closer.crowded(1000)
    if make is not a_device:
        assert closer.waiting == 0
    wait_until(lambda: closer.waiting == 0, "all to be closed")
    assert not any(os.path.exists(f"/proc/self/fd/{fd}") and os.fstat(fd).st_ino == places[fd] for fd in made)


def test_payloads_that_end_delay_no_client() -> None:
    closer = FdCloser()
    for _ in range(MANY):
        closer.close(a_device(), 1000)
        assert not closer.crowded(1000)
    wait_until(lambda: closer.waiting == 0, "all to be closed")


@pytest.mark.parametrize("make", [a_file, a_socket], ids=lambda make: make.__name__)
def test_strange_ones_are_counted_for_the_user_that_sent_them(make: object, monkeypatch: pytest.MonkeyPatch) -> None:
    """No thread is started, as if all of them were blocked by a program that does not answer."""
    assert callable(make)
    monkeypatch.setattr("extmem.broker.fd_closer._THREADS", 0)
    closer = FdCloser()
    made = [make() for _ in range(LIMIT)]
    for number, fd in enumerate(made):
        assert not closer.crowded(1000), number
        assert closer.dispose(fd, 1000) is True
    assert closer.crowded(1000) and not closer.crowded(1001) and closer.waiting == LIMIT
    for fd in made:
        os.close(fd)
