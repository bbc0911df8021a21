"""What a stranger's fd is told: the host device imports sealed memory files alone."""

from __future__ import annotations

import contextlib
import fcntl
import mmap
import os
import socket
import tempfile
from collections.abc import Iterator

import pytest

from extmem import vk
from extmem.devices.host import _memfd
from extmem.devices.host.driver import HostDriver
from extmem.errors import DriverError, UnsupportedError

PAGE = mmap.PAGESIZE
FD = vk.ExternalMemoryHandleTypeFlagBits.OPAQUE_FD


@pytest.fixture
def driver() -> HostDriver:
    return HostDriver()


@contextlib.contextmanager
def open_memfd(size: int = 2 * PAGE, seals: int = _memfd.SEALS) -> Iterator[int]:
    fd = os.memfd_create("stranger", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    try:
        os.ftruncate(fd, size)
        if seals:
            fcntl.fcntl(fd, fcntl.F_ADD_SEALS, seals)
        yield fd
    finally:
        with contextlib.suppress(OSError):
            os.close(fd)


def test_a_strange_but_sealed_memory_file_is_all_payload(driver: HostDriver) -> None:
    with open_memfd(3 * PAGE) as fd:
        facts = driver.inspect_fd(fd, FD)
        assert (facts.valid, facts.capacity, facts.descriptor) == (True, 3 * PAGE, b"")
        assert "mark of a payload" in facts.descriptor_problem
        imported = driver.import_fd(fd, 3 * PAGE, 0)
        imported.close()
        with pytest.raises(DriverError, match=f"holds {3 * PAGE} bytes"):
            driver.import_fd(fd, 3 * PAGE + 1, 0)
        os.fstat(fd)


@contextlib.contextmanager
def strangers() -> Iterator[dict[str, int]]:
    with contextlib.ExitStack() as stack:
        ours, theirs = socket.socketpair()
        stack.enter_context(ours)
        stack.enter_context(theirs)
        reader, writer = os.pipe()
        stack.callback(os.close, reader)
        stack.callback(os.close, writer)
        file = stack.enter_context(tempfile.TemporaryFile())
        file.truncate(3 * PAGE)
        fds = {"a socket": ours.fileno(), "a pipe": reader, "an ordinary file": file.fileno()}
        for words, path, flags in (
            ("a directory", "/", os.O_RDONLY),
            ("a character device", "/dev/null", os.O_RDWR),
            ("O_PATH", "/dev/null", os.O_PATH),
        ):
            fds[words] = os.open(path, flags | os.O_CLOEXEC)
            stack.callback(os.close, fds[words])
        fds["F_SEAL_SHRINK and F_SEAL_GROW missing"] = stack.enter_context(open_memfd(seals=0))
        fds["F_SEAL_GROW missing"] = stack.enter_context(open_memfd(seals=fcntl.F_SEAL_SHRINK))
        fds["F_SEAL_SHRINK missing"] = stack.enter_context(open_memfd(seals=fcntl.F_SEAL_GROW))
        fds["holds 0 bytes"] = stack.enter_context(open_memfd(size=0))
        sealed = stack.enter_context(open_memfd())
        fds["for writing only"] = os.open(f"/proc/self/fd/{sealed}", os.O_WRONLY | os.O_CLOEXEC)
        stack.callback(os.close, fds["for writing only"])
        poll = stack.enter_context(contextlib.closing(__import__("select").epoll()))
        fds["neither file, socket nor pipe"] = poll.fileno()
        yield fds


def test_a_stranger_is_told_what_it_is_and_stays_open(driver: HostDriver) -> None:
    with strangers() as fds:
        for words, fd in fds.items():
            facts = driver.inspect_fd(fd, FD)
            assert facts.valid == words.startswith("holds"), words
            with pytest.raises(DriverError, match=words) as caught:
                driver.import_fd(fd, PAGE, 0)
            assert caught.value.result == vk.Result.ERROR_INVALID_EXTERNAL_HANDLE
            assert words in str(caught.value)
            os.fstat(fd)


@pytest.mark.parametrize("fd", [-1, -100, 1 << 20, 1 << 40])
def test_a_number_that_is_no_fd_is_told_so(driver: HostDriver, fd: int) -> None:
    facts = driver.inspect_fd(fd, FD)
    assert (facts.kind, facts.valid) == ("closed", False)
    with pytest.raises(DriverError, match="not open"):
        driver.import_fd(fd, PAGE, 0)


def test_an_fd_is_no_payload_of_another_type(driver: HostDriver) -> None:
    allocation = driver.allocate(PAGE, 0, b"")
    facts = driver.inspect_fd(allocation.fd, vk.ExternalMemoryHandleTypeFlagBits.DMA_BUF)
    assert not facts.valid and "DMA_BUF" in facts.problem
    assert driver.inspect_fd(allocation.fd, FD).valid
    with pytest.raises(UnsupportedError, match="DMA_BUF"):
        driver.fd_memory_type_bits(vk.ExternalMemoryHandleTypeFlagBits.DMA_BUF, allocation.fd)
    with pytest.raises(UnsupportedError, match="D3D11_TEXTURE"):
        driver.handle_memory_type_bits(vk.ExternalMemoryHandleTypeFlagBits.D3D11_TEXTURE, 4)
    allocation.close()


def test_a_payload_without_a_description_says_so(driver: HostDriver) -> None:
    allocation = driver.allocate(PAGE, 0, b"")
    facts = driver.inspect_fd(allocation.fd, FD)
    assert (facts.valid, facts.capacity, facts.descriptor) == (True, PAGE, b"")
    assert facts.descriptor_problem == "the payload was made without one"
    allocation.close()


def test_a_damaged_self_description_is_named_and_the_payload_still_imports(driver: HostDriver) -> None:
    allocation = driver.allocate(PAGE, 0, b"descriptor")
    os.pwrite(allocation.fd, b"X", 2 * PAGE - PAGE + 20)
    facts = driver.inspect_fd(allocation.fd, FD)
    assert facts.valid and facts.descriptor == b"" and "checksum" in facts.descriptor_problem
    allocation.close()


# Host pointers.
