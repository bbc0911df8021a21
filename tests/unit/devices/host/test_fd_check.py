"""The errors for fds of other programs: the host device imports sealed memory files alone."""

from __future__ import annotations

import contextlib
import ctypes
import errno
import fcntl
import mmap
import os
import pickle
import socket
import tempfile
from collections.abc import Iterator
from typing import Any

import pytest

from extmem import raw, vk
from extmem.api import Device
from extmem.devices.host import mapping, memfd
from extmem.devices.host.backend import HostBackend
from extmem.errors import AccessDeniedError, DriverError, ExtmemError, UnsupportedError
from extmem.handles import FdHandle
from extmem.sharing.descriptor import Descriptor
from tests.unit.devices.importing import import_fd

PAGE = mmap.PAGESIZE
FD = vk.ExternalMemoryHandleTypeFlagBits.OPAQUE_FD
NT = vk.ExternalMemoryHandleTypeFlagBits.OPAQUE_WIN32


@pytest.fixture
def backend() -> HostBackend:
    return HostBackend()


@contextlib.contextmanager
def open_memfd(size: int = 2 * PAGE, seals: int = memfd.SEALS) -> Iterator[int]:
    fd = os.memfd_create("foreign", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    try:
        os.ftruncate(fd, size)
        if seals:
            fcntl.fcntl(fd, fcntl.F_ADD_SEALS, seals)
        yield fd
    finally:
        with contextlib.suppress(OSError):
            os.close(fd)


def test_a_strange_but_sealed_memory_file_is_all_payload(backend: HostBackend) -> None:
    with open_memfd(3 * PAGE) as fd:
        facts = backend.examine_fd(fd, FD)
        assert (facts.valid, facts.capacity, facts.descriptor) == (True, 3 * PAGE, b"")
        assert "mark of a payload" in facts.descriptor_problem
        imported = import_fd(backend, fd, 3 * PAGE, 0)
        imported.close()
        with pytest.raises(DriverError, match=f"holds {3 * PAGE} bytes"):
            import_fd(backend, fd, 3 * PAGE + 1, 0)
        os.fstat(fd)


@contextlib.contextmanager
def foreign_fds() -> Iterator[dict[str, int]]:
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


def test_an_fd_that_is_not_a_payload_is_refused_with_what_it_is_and_stays_open(backend: HostBackend) -> None:
    with foreign_fds() as fds:
        for words, fd in fds.items():
            facts = backend.examine_fd(fd, FD)
            assert facts.valid == words.startswith("holds"), words
            with pytest.raises(DriverError, match=words) as caught:
                import_fd(backend, fd, PAGE, 0)
            assert caught.value.result == vk.Result.ERROR_INVALID_EXTERNAL_HANDLE
            assert words in str(caught.value)
            os.fstat(fd)


@pytest.mark.parametrize("fd", [-1, -100, 1 << 20, 1 << 40])
def test_a_number_that_is_no_fd_is_reported(backend: HostBackend, fd: int) -> None:
    facts = backend.examine_fd(fd, FD)
    assert (facts.file_type, facts.valid) == ("closed", False)
    with pytest.raises(DriverError, match="not open"):
        import_fd(backend, fd, PAGE, 0)


def test_an_fd_is_no_payload_of_another_type(backend: HostBackend) -> None:
    allocation = backend.allocate(PAGE, 0, b"")
    facts = backend.examine_fd(allocation.fd, vk.ExternalMemoryHandleTypeFlagBits.DMA_BUF)
    assert not facts.valid and "DMA_BUF" in facts.problem
    assert backend.examine_fd(allocation.fd, FD).valid
    with pytest.raises(UnsupportedError, match="DMA_BUF"):
        backend.fd_memory_type_bits(vk.ExternalMemoryHandleTypeFlagBits.DMA_BUF, allocation.fd)
    with pytest.raises(UnsupportedError, match="D3D11_TEXTURE"):
        backend.handle_memory_type_bits(vk.ExternalMemoryHandleTypeFlagBits.D3D11_TEXTURE, 4)
    allocation.close()


def test_a_payload_without_a_description_reports_it(backend: HostBackend) -> None:
    allocation = backend.allocate(PAGE, 0, b"")
    facts = backend.examine_fd(allocation.fd, FD)
    assert (facts.valid, facts.capacity, facts.descriptor) == (True, PAGE, b"")
    assert facts.descriptor_problem == "the payload was made without one"
    allocation.close()


def test_a_damaged_self_description_is_named_and_the_payload_still_imports(backend: HostBackend) -> None:
    allocation = backend.allocate(PAGE, 0, b"descriptor")
    os.pwrite(allocation.fd, b"X", 2 * PAGE + 20)
    facts = backend.examine_fd(allocation.fd, FD)
    assert facts.valid and facts.descriptor == b"" and "checksum" in facts.descriptor_problem
    allocation.close()


# Files whose pages their maker can remove, and files that cannot be written to.


def open_huge(size: int) -> int:
    try:
        fd = os.memfd_create("huge", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING | os.MFD_HUGETLB)
    except OSError as error:
        pytest.skip(f"no huge pages in this kernel: {error}")
    os.ftruncate(fd, size)
    fcntl.fcntl(fd, fcntl.F_ADD_SEALS, memfd.SEALS)
    return fd


def test_a_file_of_huge_pages_is_refused(device: Device) -> None:
    """However it is sealed, its maker can punch a hole, and there may be no page left to fill it."""
    fd = open_huge(64 << 20)
    try:
        huge = os.fstatvfs(fd).f_bsize
        with pytest.raises(DriverError, match=rf"huge pages \({huge} bytes each\)"):
            import_fd(HostBackend(), fd, PAGE, 0)
        with FdHandle(os.dup(fd)) as handle:
            with pytest.raises(ExtmemError, match="huge pages"):
                device.open(handle)
            with pytest.raises(ExtmemError, match="huge pages"):
                raw.import_payload(device, handle, Descriptor(handle_types=FD, allocation_size=PAGE))
            os.fstat(handle.fileno())
    finally:
        os.close(fd)


def test_what_its_maker_takes_back_of_a_payload_reads_as_zeros(backend: HostBackend) -> None:
    """The reason why files of ordinary pages are accepted."""
    with open_memfd(3 * PAGE) as fd:
        allocation = import_fd(backend, fd, 3 * PAGE, 0)
        data = memoryview(bytearray(PAGE))
        backend.write(allocation, 0, memoryview(b"x" * PAGE))
        ctypes.CDLL(None, use_errno=True).fallocate(fd, 3, ctypes.c_long(0), ctypes.c_long(PAGE))  # PUNCH_HOLE
        backend.read(allocation, 0, data)
        assert bytes(data) == bytes(PAGE)
        allocation.close()


@pytest.mark.parametrize("seal", [fcntl.F_SEAL_WRITE, 0x10], ids=["F_SEAL_WRITE", "F_SEAL_FUTURE_WRITE"])
def test_a_file_sealed_against_writing_is_read_only(device: Device, seal: int) -> None:
    with open_memfd(3 * PAGE, fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW) as fd:
        os.pwrite(fd, b"sealed", 0)
        fcntl.fcntl(fd, fcntl.F_ADD_SEALS, seal)
        facts = HostBackend().examine_fd(fd, FD)
        assert (facts.valid, facts.writable) == (True, False)
        statement = Descriptor(handle_types=FD | NT, allocation_size=3 * PAGE)
        with raw.import_payload(device, FdHandle(os.dup(fd)), statement) as memory:
            assert memory.read_only and memory.map().readonly and bytes(memory.map()[:6]) == b"sealed"
            assert memory.read_bytes(0, 6) == b"sealed"
            for change in (lambda: memory.write(b"x"), lambda: memory.fill(1)):
                with pytest.raises(AccessDeniedError):
                    change()
            # The same for a process that gets it from this one.
            with pickle.loads(pickle.dumps(memory)) as passed:
                assert passed.read_only and bytes(passed.map()[:6]) == b"sealed"


def test_a_file_that_is_not_sealed_against_writing_is_writable(device: Device) -> None:
    with open_memfd(3 * PAGE, fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW) as fd:
        statement = Descriptor(handle_types=FD | NT, allocation_size=3 * PAGE)
        with raw.import_payload(device, FdHandle(os.dup(fd)), statement) as memory:
            assert not memory.read_only
            memory.write(b"x")
            with pickle.loads(pickle.dumps(memory)) as passed:
                assert not passed.read_only and bytes(passed.map()[:1]) == b"x"


@pytest.mark.parametrize("seal", [fcntl.F_SEAL_WRITE, 0x10])
def test_a_writable_mapping_that_the_kernel_refuses_is_denied_access(seal: int) -> None:
    with open_memfd(PAGE, fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW) as fd:
        fcntl.fcntl(fd, fcntl.F_ADD_SEALS, seal)
        with pytest.raises(AccessDeniedError, match="sealed against writing"):
            mapping.map_file(fd, PAGE, True)
        assert mapping.map_file(fd, PAGE, False).writable is False


def test_before_linux_6_7_a_sealed_file_is_mapped_through_an_fd_for_reading(monkeypatch: pytest.MonkeyPatch) -> None:
    real = mapping._mmap

    def refusing(address: int, size: int, rights: int, flags: int, fd: int, offset: int) -> Any:
        if fcntl.fcntl(fd, fcntl.F_GETFL) & os.O_ACCMODE == os.O_RDONLY:
            return real(address, size, rights, flags, fd, offset)
        return real(address, size, rights, flags, -1, offset)  # the error does not matter

    monkeypatch.setattr(mapping, "_mmap", refusing)
    monkeypatch.setattr(mapping, "ffi", type("Failing", (), {"errno": errno.EPERM}))
    with open_memfd(PAGE, fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW) as fd:
        mapped = mapping.map_file(fd, PAGE, False)
        assert (mapped.size, mapped.writable, bool(mapped.address)) == (PAGE, False, True)
        with pytest.raises(AccessDeniedError):
            mapping.map_file(fd, PAGE, True)


# Host pointers.
