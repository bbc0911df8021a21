"""The one module that receives fds: none is lost, none is kept by mistake, none is inheritable."""

from __future__ import annotations

import errno
import os
import resource
import socket
import struct
from collections.abc import Iterator

import pytest

from extmem.errors import PeerGoneError, PeerProtocolError
from extmem.owning import OwnedFd
from extmem.testing.leaks import descriptors
from extmem.wire import MAX_FDS, MAX_MESSAGE, transport

SO_TIMESTAMP = 29  # asm-generic/socket.h
Pair = tuple[socket.socket, socket.socket]


@pytest.fixture
def pair() -> Iterator[Pair]:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with ours, theirs:
        yield ours, theirs


@pytest.fixture
def file() -> Iterator[int]:
    fd = os.memfd_create("test")
    yield fd
    os.close(fd)


@pytest.fixture(autouse=True)
def no_descriptor_is_left(pair: Pair, file: int) -> Iterator[None]:
    before = descriptors()
    yield
    assert not descriptors().items() - before.items()


def rights(*fds: int) -> list[tuple[int, int, bytes]]:
    return [(socket.SOL_SOCKET, socket.SCM_RIGHTS, struct.pack(f"{len(fds)}i", *fds))]


def test_a_packet_without_descriptor_arrives_whole(pair: Pair) -> None:
    transport.send(pair[0], b"hello")
    assert transport.receive(pair[1]) == (b"hello", None)


def test_a_packet_of_the_greatest_length_arrives_whole(pair: Pair) -> None:
    transport.send(pair[0], b"x" * MAX_MESSAGE)
    packet = transport.receive(pair[1])
    assert packet is not None and len(packet[0]) == MAX_MESSAGE


def test_a_longer_packet_is_not_sent(pair: Pair) -> None:
    with pytest.raises(PeerProtocolError, match="16385 bytes"):
        transport.send(pair[0], b"x" * (MAX_MESSAGE + 1))


def test_a_descriptor_arrives_owned_and_not_inheritable(pair: Pair, file: int) -> None:
    transport.send(pair[0], b"with", file)
    packet = transport.receive(pair[1])
    assert packet is not None and packet[1] is not None
    fd = packet[1].take()
    assert os.path.samestat(os.fstat(fd), os.fstat(file)) and not os.get_inheritable(fd)
    os.close(fd)


def test_a_descriptor_that_nobody_takes_is_closed(pair: Pair, file: int) -> None:
    transport.send(pair[0], b"with", file)
    packet = transport.receive(pair[1])
    assert packet is not None and packet[1] is not None
    fd = packet[1].fd
    del packet
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(fd)


def test_closing_an_owned_descriptor_twice_is_safe(pair: Pair, file: int) -> None:
    transport.send(pair[0], b"with", file)
    packet = transport.receive(pair[1])
    assert packet is not None and packet[1] is not None
    packet[1].close()
    packet[1].close()


@pytest.mark.parametrize("count", [2, 3, 253])
def test_more_descriptors_than_one_are_an_error_and_all_are_closed(pair: Pair, file: int, count: int) -> None:
    pair[0].sendmsg([b"many"], rights(*[file] * count))
    with pytest.raises(PeerProtocolError, match="cut off"):
        transport.receive(pair[1])


def test_two_control_messages_with_a_descriptor_each_are_an_error(pair: Pair, file: int) -> None:
    pair[0].sendmsg([b"twice"], rights(file) + rights(file))
    with pytest.raises(PeerProtocolError):
        transport.receive(pair[1])


def test_a_packet_too_long_is_an_error_and_its_descriptor_is_closed(pair: Pair, file: int) -> None:
    pair[0].sendmsg([b"x" * (MAX_MESSAGE + 1)], rights(file))
    with pytest.raises(PeerProtocolError, match="longer than"):
        transport.receive(pair[1])


def test_a_descriptor_that_cannot_be_kept_is_this_process_s_own_lack(pair: Pair, file: int) -> None:
    """The kernel reports it as truncation, too; the peer has made no error."""
    transport.send(pair[0], b"one too many", file)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    lowest_free = os.dup(file)
    os.close(lowest_free)
    resource.setrlimit(resource.RLIMIT_NOFILE, (lowest_free, hard))
    try:
        with pytest.raises(OSError, match="too many open files") as caught:
            transport.receive(pair[1])
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert caught.value.errno == errno.EMFILE


def test_room_for_two_by_mistake_still_lets_only_one_in(pair: Pair, file: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """CMSG_SPACE instead of CMSG_LEN: the padding has room for a second fd, which the count finds."""
    monkeypatch.setattr(transport, "_PLAIN", ((MAX_MESSAGE, socket.CMSG_SPACE(4), socket.MSG_CMSG_CLOEXEC),))
    pair[0].sendmsg([b"padded"], rights(file, file))
    with pytest.raises(PeerProtocolError, match="2 file descriptors"):
        transport.receive(pair[1])


def test_control_data_of_another_kind_is_an_error_and_the_descriptor_is_closed(
    pair: Pair, file: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    pair[1].setsockopt(socket.SOL_SOCKET, SO_TIMESTAMP, 1)
    monkeypatch.setattr(transport, "_PLAIN", ((MAX_MESSAGE, 256, socket.MSG_CMSG_CLOEXEC),))
    pair[0].sendmsg([b"stamped"], rights(file))
    with pytest.raises(PeerProtocolError, match=f"type {SO_TIMESTAMP}"):
        transport.receive(pair[1])


def test_the_senders_credentials_come_where_they_are_asked_for(pair: Pair, file: int) -> None:
    pair[1].setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)
    transport.send(pair[0], b"me", file)
    packet = transport.receive_many(pair[1], credentials=True)
    assert packet is not None and len(packet[1]) == 1
    assert packet[2] == transport.Credentials(os.getpid(), os.getuid(), os.getgid())
    packet[1][0].close()


def test_nothing_to_read_now_is_a_blocking_error(pair: Pair) -> None:
    pair[1].setblocking(False)
    with pytest.raises(BlockingIOError):
        transport.receive(pair[1])


def test_a_peer_that_hung_up_is_none_to_receive_and_gone_to_send(pair: Pair) -> None:
    pair[0].close()
    assert transport.receive(pair[1]) is None
    with pytest.raises(PeerGoneError):
        transport.send(pair[1], b"anybody?")


def test_what_was_sent_before_the_hang_up_is_still_read(pair: Pair) -> None:
    transport.send(pair[0], b"last words")
    pair[0].close()
    assert transport.receive(pair[1]) == (b"last words", None)
    assert transport.receive(pair[1]) is None


def test_an_empty_packet_is_a_hang_up_and_its_descriptor_is_closed(pair: Pair, file: int) -> None:
    pair[0].sendmsg([b""], rights(file))
    assert transport.receive(pair[1]) is None


def test_a_full_socket_is_a_blocking_error(pair: Pair) -> None:
    pair[0].setblocking(False)
    with pytest.raises(BlockingIOError):
        for _ in range(10_000):
            transport.send(pair[0], b"x" * MAX_MESSAGE)


def test_the_kernel_identifies_the_client(pair: Pair) -> None:
    assert transport.credentials_of(pair[0]) == transport.Credentials(os.getpid(), os.getuid(), os.getgid())
    assert transport.uid_of(pair[0]) == os.getuid()
    assert transport.groups_of(pair[0]) == frozenset(os.getgroups())


@pytest.mark.parametrize("count", [1, 2, 252, MAX_FDS])
def test_many_descriptors_arrive_owned_in_order_and_not_inheritable(pair: Pair, count: int) -> None:
    files = [os.memfd_create(f"{number}") for number in range(count)]
    transport.send_many(pair[0], b"many", files)
    packet = transport.receive_many(pair[1])
    assert packet is not None and packet[0] == b"many"
    for one, file in zip(packet[1], files, strict=True):
        assert os.path.samestat(os.fstat(one.fd), os.fstat(file)) and not os.get_inheritable(one.fd)
        os.close(file)


def test_the_kernel_sends_no_more_than_so_many(pair: Pair, file: int) -> None:
    with pytest.raises(OSError, match="Invalid argument"):
        transport.send_many(pair[0], b"too many", [file] * (MAX_FDS + 1))


@pytest.mark.parametrize("room", [0, 1, 5])
def test_descriptors_that_do_not_all_fit_into_this_process_are_all_closed(pair: Pair, file: int, room: int) -> None:
    """The kernel reports it as truncation; the peer has done nothing wrong."""
    transport.send_many(pair[0], b"ten", [file] * 10)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    lowest_free = os.dup(file)
    os.close(lowest_free)
    resource.setrlimit(resource.RLIMIT_NOFILE, (lowest_free + room, hard))
    try:
        with pytest.raises(OSError, match="too many open files") as caught:
            transport.receive_many(pair[1])
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert caught.value.errno == errno.EMFILE


def test_a_disposer_gets_the_descriptors_of_a_broken_packet(pair: Pair, file: int) -> None:
    disposed: list[int] = []
    pair[0].sendmsg([b"x" * (MAX_MESSAGE + 1)], rights(file, file))
    with pytest.raises(PeerProtocolError, match="longer than"):
        transport.receive_many(pair[1], dispose=disposed.append)
    assert len(disposed) == 2
    for fd in disposed:
        os.close(fd)


@pytest.mark.parametrize("owners", [0, 1, 2])
def test_after_an_exception_each_descriptor_is_closed_once(
    pair: Pair, file: int, monkeypatch: pytest.MonkeyPatch, owners: int
) -> None:
    """Those that have an owner by then are closed by it, and the others by `receive_many`."""
    created = []

    def owned_fd(*, numbers: Iterator[int]) -> OwnedFd:
        if len(created) == owners:
            raise KeyboardInterrupt
        created.append(len(created))
        return OwnedFd(numbers=numbers)

    closed: list[int] = []
    real = os.close
    monkeypatch.setattr(transport, "OwnedFd", owned_fd)
    monkeypatch.setattr(transport.os, "close", lambda fd: (closed.append(fd), real(fd)))
    transport.send_many(pair[0], b"three", [file] * 3)
    with pytest.raises(KeyboardInterrupt):
        transport.receive_many(pair[1])
    assert len(closed) == 3 - owners
