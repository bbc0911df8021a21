"""`extmem.process.send_handle` and `receive_handle`: an fd handle and its description through a socket."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator

import msgspec
import pytest

import extmem
from extmem import vk
from extmem.api import Device
from extmem.devices.vulkan.fd_check import FdCheck
from extmem.process import receive_handle, send_handle
from extmem.testing import fake_vulkan
from extmem.wire import transport

FD = vk.ExternalMemoryHandleTypeFlagBits.OPAQUE_FD
Pair = tuple[socket.socket, socket.socket]


@pytest.fixture
def pair() -> Iterator[Pair]:
    ends = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with ends[0], ends[1]:
        yield ends


@pytest.fixture(params=["host", "vulkan"])
def any_device(request: pytest.FixtureRequest) -> Iterator[Device]:
    try:
        opened = extmem.open_device(kind=request.param)
    except extmem.UnsupportedError as error:
        pytest.skip(f"no Vulkan device here: {error}")
    with opened:
        yield opened


def test_a_handle_arrives_with_its_description(any_device: Device, pair: Pair) -> None:
    with any_device.allocate((2, 3), "int16", handle_types=int(FD)) as memory, memory.export_handle(FD) as fd:
        memory.fill(1)
        send_handle(pair[0], fd)
        received = receive_handle(pair[1])
        assert not fd.closed and received.same_object(fd)
        with extmem.open(received) as opened:
            assert received.closed, "a successful import consumes the fd"
            assert opened.device.uuid == any_device.uuid
            assert opened.read().tolist() == [[257] * 3] * 2


def test_the_specification_level_import_is_checked_by_the_received_descriptor(
    vulkan_device: Device, pair: Pair
) -> None:
    with vulkan_device.allocate(65536, handle_types=int(FD)) as memory, memory.export_handle(FD) as fd:
        send_handle(pair[0], fd)
        with receive_handle(pair[1]) as received:
            chain = vk.ImportMemoryFdInfoKHR(FD, received)
            small = vk.MemoryAllocateInfo(memory.allocation_size // 16, memory.memory_type_index, chain)
            with pytest.raises(extmem.RuleViolation):
                vulkan_device.allocate_memory(small)
            right = vk.MemoryAllocateInfo(memory.allocation_size, memory.memory_type_index, chain)
            vulkan_device.allocate_memory(right).close()
            assert received.closed


def test_another_users_fd_is_proven_first(vulkan_device: Device, pair: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    """The socket peer's user, according to the kernel: fds of this user are trusted, those of another are tried."""
    tried: list[int] = []
    real = FdCheck.prove
    monkeypatch.setattr(
        FdCheck, "prove", lambda self, request: (tried.append(request.source.fd), real(self, request))[1]
    )
    with vulkan_device.allocate(4096, handle_types=int(FD)) as memory, memory.export_handle(FD) as fd:
        for uid, times in ((os.getuid(), 0), (os.getuid() + 1, 1)):
            send_handle(pair[0], fd)
            with monkeypatch.context() as patch:
                patch.setattr(transport, "uid_of", lambda _, uid=uid: uid)
                received = receive_handle(pair[1])
            vulkan_device.open(received).close()
            assert len(tried) == times


def test_a_file_that_was_cut_short_is_refused() -> None:
    """Also where the library exported it itself: a driver's file need not be sealed, and the fake's is not."""
    fake = fake_vulkan.FakeVulkan([fake_vulkan.DISCRETE])
    with fake_vulkan.installed(fake), extmem.open_device(kind="vulkan") as device:
        with device.allocate(1 << 20, handle_types=int(FD)) as memory, memory.export_handle(FD) as fd:
            device.open(fd.duplicate()).close()
            size = os.fstat(fd.fileno()).st_size
            os.ftruncate(fd.fileno(), 4096)
            try:
                with fd.duplicate() as copy, pytest.raises(extmem.DriverError, match="is a file of 4096 bytes"):
                    device.open(copy)
            finally:
                os.ftruncate(fd.fileno(), size)


def test_a_closed_peer_and_invalid_messages_are_refused(pair: Pair) -> None:
    for message in (b"\xc1", msgspec.msgpack.encode([2, None]), msgspec.msgpack.encode([1, ["x"]]), b"\x91\x01\x00"):
        socket.send_fds(pair[0], [message], [pair[0].fileno()])
        before = len(os.listdir("/proc/self/fd"))
        with pytest.raises(extmem.PeerProtocolError):
            receive_handle(pair[1])
        assert len(os.listdir("/proc/self/fd")) == before, "what came is closed"
    pair[0].send(b"no descriptor")
    with pytest.raises(extmem.PeerProtocolError, match="without a file descriptor"):
        receive_handle(pair[1])
    pair[0].close()
    with pytest.raises(extmem.PeerGoneError, match="no handle was received"):
        receive_handle(pair[1])


def test_only_sockets_that_keep_messages_whole(device: Device) -> None:
    with device.allocate(64) as memory, memory.export_handle(FD) as fd:
        for kind in ((socket.AF_UNIX, socket.SOCK_STREAM), (socket.AF_INET, socket.SOCK_DGRAM)):
            with socket.socket(*kind) as sock:
                with pytest.raises(extmem.UnsupportedError, match="SOCK_SEQPACKET"):
                    send_handle(sock, fd)
                with pytest.raises(extmem.UnsupportedError, match="SOCK_SEQPACKET"):
                    receive_handle(sock)


def test_a_closed_handle_is_not_sent(device: Device, pair: Pair) -> None:
    with device.allocate(64) as memory:
        fd = memory.export_handle(FD)
        fd.close()
        with pytest.raises(extmem.HandleStateError):
            send_handle(pair[0], fd)  # type: ignore[arg-type]  # an FdHandle, as required
