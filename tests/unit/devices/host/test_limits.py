"""Requests that are too large for the host device, or for what is left: clear errors, and nothing stays behind."""

from __future__ import annotations

import contextlib
import errno
import mmap
import os
import resource
from collections.abc import Iterator
from pathlib import Path

import pytest

from extmem import vk
from extmem.devices.host import memfd
from extmem.devices.host.backend import HostBackend
from extmem.devices.host.memory import HostAllocation
from extmem.errors import DriverError, OutOfMemoryError
from extmem.owning import OwnedFd

PAGE = mmap.PAGESIZE
FD = vk.ExternalMemoryHandleTypeFlagBits.OPAQUE_FD


@pytest.fixture
def backend() -> HostBackend:
    return HostBackend()


def open_fds() -> set[str]:
    return set(os.listdir("/proc/self/fd"))


# What a payload is.


@pytest.mark.parametrize(("size", "kind"), [(0, 0), (-1, 0), (PAGE, 2), (PAGE, -1)])
def test_impossible_sizes_and_types_never_reach_the_kernel(backend: HostBackend, size: int, kind: int) -> None:
    with pytest.raises(DriverError, match="are asked for"):
        backend.allocate(size, kind, b"")


def test_more_than_the_heap_is_out_of_device_memory(backend: HostBackend) -> None:
    heap = backend.memory_properties().memory_heaps[0].size
    for size in (heap + 1, 1 << 62, 1 << 80):
        with pytest.raises(OutOfMemoryError, match=f"the heap has {heap}") as caught:
            backend.allocate(size, 0, b"")
        assert caught.value.result == vk.Result.ERROR_OUT_OF_DEVICE_MEMORY


@contextlib.contextmanager
def limit(kind: int, value: int) -> Iterator[None]:
    soft, hard = resource.getrlimit(kind)
    resource.setrlimit(kind, (value, hard))
    try:
        yield
    finally:
        resource.setrlimit(kind, (soft, hard))


def test_a_file_size_limit_is_a_clear_error_and_leaves_nothing(backend: HostBackend) -> None:
    before = open_fds()
    with limit(resource.RLIMIT_FSIZE, 1 << 20):
        backend.allocate(PAGE, 0, b"").close()
        with pytest.raises(OutOfMemoryError, match="1048576 bytes; raise `ulimit -f`") as caught:
            backend.allocate(1 << 21, 0, b"")
    assert caught.value.result == vk.Result.ERROR_OUT_OF_DEVICE_MEMORY
    assert open_fds() == before
    backend.allocate(1 << 21, 0, b"").close()


def test_a_full_descriptor_table_is_a_clear_error(backend: HostBackend) -> None:
    allocation = backend.allocate(PAGE, 0, b"")
    held = []
    with limit(resource.RLIMIT_NOFILE, 64):
        try:
            while True:
                held.append(os.dup(allocation.fd))
        except OSError as error:
            assert error.errno == errno.EMFILE
        for action in (lambda: backend.allocate(PAGE, 0, b""), lambda: backend.export_fd(allocation)):
            with pytest.raises(OutOfMemoryError, match="64 descriptors open.*ulimit -n") as caught:
                action()
            assert caught.value.result == vk.Result.ERROR_TOO_MANY_OBJECTS
        assert allocation.map().size == PAGE  # it needs no fd
    for fd in held:
        os.close(fd)
    backend.allocate(PAGE, 0, b"").close()
    allocation.close()


def test_no_address_space_is_a_clear_error(backend: HostBackend) -> None:
    allocation = backend.allocate(64 << 20, 0, b"")
    used = int(Path("/proc/self/statm").read_text().split()[0]) * PAGE
    with limit(resource.RLIMIT_AS, used + (16 << 20)):
        with pytest.raises(OutOfMemoryError, match="vm.max_map_count"):
            allocation.map()
    assert allocation.map().size == 64 << 20
    allocation.close()


def test_an_older_kernel_without_noexec_seals_makes_payloads_too(
    backend: HostBackend, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, asked = os.memfd_create, []

    def older(name: str, flags: int) -> int:
        asked.append(flags)
        if flags & 0x8:
            raise OSError(errno.EINVAL, "Invalid argument")
        return real(name, flags)

    monkeypatch.setattr(os, "memfd_create", older)
    allocation = backend.allocate(PAGE, 0, b"d")
    assert len(asked) == 2 and backend.examine_fd(allocation.fd, FD).valid
    allocation.close()


def test_an_interrupted_allocation_leaves_nothing(backend: HostBackend, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(fd: int, size: int) -> None:
        raise KeyboardInterrupt

    before = open_fds()
    monkeypatch.setattr(memfd.reserve, "reserve", interrupted)
    with pytest.raises(KeyboardInterrupt):
        backend.allocate(PAGE, 0, b"")
    assert open_fds() == before


def test_a_mapping_of_no_file_is_the_errors_own() -> None:
    lost = HostAllocation(OwnedFd(), 4096, 0, False)
    with pytest.raises(OSError, match="mmap of 4096 bytes: Bad file descriptor"):
        lost.map(writable=False)


def test_other_errors_of_the_os_stay_what_they_are() -> None:
    error = OSError(errno.EIO, "broken")
    assert memfd.out_of_memory(error, "vkAllocateMemory", "anything") is error
    for code in (errno.ENOMEM, errno.ENOSPC, errno.ENFILE):
        assert isinstance(memfd.out_of_memory(OSError(code, ""), "vkAllocateMemory", "anything"), OutOfMemoryError)
