"""Payloads of the host device: sealed memory files, their mappings, and fds of other programs."""

from __future__ import annotations

import ctypes
import fcntl
import gc
import mmap
import os
import subprocess
import sys
from pathlib import Path

import pytest

from extmem import vk
from extmem.devices.host import memfd
from extmem.devices.host.backend import HostBackend
from extmem.errors import DriverError, HandleStateError, UnsupportedError
from extmem.sharing.limits import DESCRIPTOR_LIMIT
from extmem.sharing.payload import PayloadFd
from tests.unit.devices.importing import import_fd, import_payload

PAGE = mmap.PAGESIZE
FD = vk.ExternalMemoryHandleTypeFlagBits.OPAQUE_FD
HOST = vk.ExternalMemoryHandleTypeFlagBits.HOST_ALLOCATION


@pytest.fixture
def backend() -> HostBackend:
    return HostBackend()


def open_fds() -> set[str]:
    return set(os.listdir("/proc/self/fd"))


def bytes_at(address: int, size: int) -> bytes:
    return ctypes.string_at(address, size)


# What a payload is.


def test_a_payload_is_zeroed_sealed_and_describes_itself(backend: HostBackend) -> None:
    allocation = backend.allocate(5000, 1, b"who I am")
    fd = allocation.fd
    assert os.fstat(fd).st_size == 2 * PAGE + 2 * PAGE  # the control page, and the descriptor
    assert fcntl.fcntl(fd, fcntl.F_GET_SEALS) & memfd.SEALS == memfd.SEALS
    assert fcntl.fcntl(fd, fcntl.F_GETFD) & fcntl.FD_CLOEXEC
    assert os.pread(fd, 5000, 0) == bytes(5000)
    for size in (0, PAGE, 100 * PAGE):
        with pytest.raises(PermissionError):
            os.ftruncate(fd, size)
    facts = backend.examine_fd(fd, FD)
    assert (facts.valid, facts.file_type, facts.writable) == (True, "memfd", True)
    assert (facts.capacity, facts.descriptor, facts.descriptor_problem) == (2 * PAGE, b"who I am", "")
    assert facts.identity == allocation.identity
    assert (allocation.size, allocation.memory_type_index, allocation.writable) == (5000, 1, True)
    assert not allocation.frozen and allocation.freeze() and allocation.frozen and not allocation.writable
    assert not backend.examine_fd(fd, FD).writable
    with pytest.raises(PermissionError):
        os.pwrite(fd, b"x", 0)
    allocation.close()


def test_all_of_a_payload_is_there_before_anyone_touches_it(backend: HostBackend) -> None:
    allocation = backend.allocate(8 << 20, 0, b"")
    assert os.fstat(allocation.fd).st_blocks * 512 >= 8 << 20
    allocation.close()


def test_the_longest_descriptor_fits_and_a_longer_one_leaves_nothing_behind(backend: HostBackend) -> None:
    allocation = backend.allocate(1, 0, b"d" * DESCRIPTOR_LIMIT)
    assert backend.examine_fd(allocation.fd, FD).descriptor == b"d" * DESCRIPTOR_LIMIT
    allocation.close()
    before = open_fds()
    with pytest.raises(ValueError, match="does not fit"):
        backend.allocate(1, 0, b"d" * (DESCRIPTOR_LIMIT + 1))
    assert open_fds() == before


def test_allocations_close_once_and_mappings_outlive_them(backend: HostBackend) -> None:
    before = open_fds()
    allocation = backend.allocate(PAGE, 0, b"")
    mapping = allocation.map()
    assert not allocation.closed
    allocation.close()
    allocation.close()
    assert allocation.closed and open_fds() == before
    with pytest.raises(HandleStateError, match="freed"):
        _ = allocation.fd
    with pytest.raises(HandleStateError, match="freed"):
        allocation.map()
    ctypes.memset(mapping.address, 7, PAGE)
    assert bytes_at(mapping.address, 2) == b"\7\7"
    address = mapping.address
    del mapping
    assert not backend.host_range_mapped(address, 1), "it ends with the last who holds it"


def test_what_is_lost_is_released(backend: HostBackend) -> None:
    before = open_fds()
    allocation = backend.allocate(PAGE, 0, b"")
    address = allocation.map().address
    del allocation
    gc.collect()
    assert open_fds() == before
    assert not backend.host_range_mapped(address, 1)


def test_a_closed_driver_allocates_nothing_and_frees_what_there_was(backend: HostBackend) -> None:
    allocation = backend.allocate(PAGE, 0, b"")
    backend.close()
    backend.close()
    with pytest.raises(HandleStateError, match="closed"):
        backend.allocate(PAGE, 0, b"")
    allocation.close()


# Mapping.


def test_B93_mappings_of_one_payload_show_the_same_bytes(backend: HostBackend) -> None:
    allocation = backend.allocate(3 * PAGE, 0, b"")
    fd = backend.export_fd(allocation).take()
    other = import_fd(backend, fd, 3 * PAGE, 0)
    os.close(fd)
    ours, theirs = allocation.map(), other.map()
    assert ours.address != theirs.address and ours.address % PAGE == 0
    assert ours.size == theirs.size == 3 * PAGE
    ctypes.memmove(ours.address + PAGE, b"hello", 5)
    assert bytes_at(theirs.address + PAGE, 5) == b"hello"
    assert other.identity == allocation.identity
    for thing in (other, allocation):
        thing.close()


def test_the_self_description_is_outside_the_mapping(backend: HostBackend) -> None:
    allocation = backend.allocate(PAGE, 0, b"keep out")
    mapping = allocation.map()
    ctypes.memset(mapping.address, 0xFF, mapping.size)
    assert backend.examine_fd(allocation.fd, FD).descriptor == b"keep out"
    allocation.close()


def test_a_read_only_descriptor_cannot_be_mapped_for_writing(backend: HostBackend) -> None:
    allocation = backend.allocate(PAGE, 0, b"")
    fd = backend.export_fd(allocation, read_only=True).take()
    # The kernel itself, without extmem.
    with pytest.raises(PermissionError):
        mmap.mmap(fd, PAGE, mmap.MAP_SHARED, mmap.PROT_READ | mmap.PROT_WRITE)
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.pwrite(fd, b"x", 0)
    imported = import_fd(backend, fd, PAGE, 0)
    os.close(fd)
    assert not imported.writable
    with pytest.raises(PermissionError, match="reading only"):
        imported.map(True)
    writer = allocation.map()
    reader = imported.map(False)
    assert (writer.writable, reader.writable) == (True, False)
    ctypes.memmove(writer.address, b"seen", 4)
    assert bytes_at(reader.address, 4) == b"seen"
    again = backend.export_fd(imported).take()
    assert not backend.examine_fd(again, FD).writable, "what was received read-only is exported read-only"
    os.close(again)
    for thing in (imported, allocation):
        thing.close()


def test_a_payload_is_read_only_by_its_mode(backend: HostBackend) -> None:
    allocation = backend.allocate(PAGE, 0, b"")
    assert os.fstat(allocation.fd).st_mode & 0o777 == 0o444
    allocation.close()


def test_a_read_only_descriptor_cannot_be_reopened_for_writing_by_another_user(backend: HostBackend) -> None:
    if os.geteuid() != 0:
        pytest.skip("needs root, to be another user")
    allocation = backend.allocate(PAGE, 0, b"")
    fd = backend.export_fd(allocation, read_only=True).take()
    code = (
        "import ctypes, os\n"
        "os.setgroups([]); os.setgid(65534); os.setuid(65534)\n"
        # A process that has changed its user cannot read its own /proc/self/fd until it is dumpable again.
        "ctypes.CDLL(None).prctl(4, 1, 0, 0, 0)\n"
        f"os.close(os.open('/proc/self/fd/{fd}', os.O_RDONLY)); print('read')\n"
        f"try: os.open('/proc/self/fd/{fd}', os.O_RDWR); print('written')\n"
        "except PermissionError: print('refused')\n"
    )
    command = [sys.executable, "-S", "-E", "-c", code]
    child = subprocess.run(command, pass_fds=[fd], capture_output=True, text=True, timeout=30, check=False)
    os.close(fd)
    allocation.close()
    assert child.stdout.split() == ["read", "refused"], child.stderr


def test_4096_imports_and_mappings_leave_nothing(backend: HostBackend) -> None:
    allocation = backend.allocate(PAGE, 0, b"")
    before = open_fds()
    maps = Path("/proc/self/maps").read_text().count("memfd:extmem")
    for _ in range(4096):
        fd = backend.export_fd(allocation).take()
        imported = import_fd(backend, fd, PAGE, 0)
        os.close(fd)
        assert imported.map().size == PAGE
        imported.close()
    assert open_fds() == before
    assert Path("/proc/self/maps").read_text().count("memfd:extmem") == maps
    allocation.close()


# Importing.


def test_an_import_borrows_the_fd_whether_it_succeeds_or_not(backend: HostBackend) -> None:
    allocation = backend.allocate(PAGE, 0, b"")
    fd = backend.export_fd(allocation).take()
    with pytest.raises(DriverError, match=f"allocationSize is {PAGE + 1}.*holds {PAGE} bytes") as caught:
        import_fd(backend, fd, PAGE + 1, 0)  # the page with the frame is not part of the payload
    assert caught.value.result == vk.Result.ERROR_INVALID_EXTERNAL_HANDLE
    os.fstat(fd)
    imported = import_fd(backend, fd, PAGE, 0)
    os.close(fd)
    assert os.fstat(imported.fd).st_ino == os.fstat(allocation.fd).st_ino, "the allocation has a copy"
    imported.close()
    allocation.close()


def test_an_examined_payload_is_closed_with_its_import_and_not_by_a_failed_one(backend: HostBackend) -> None:
    allocation = backend.allocate(PAGE, 0, b"")
    shared = backend.export_fd(allocation)
    payload = PayloadFd(shared, True)
    with pytest.raises(DriverError, match=f"allocationSize is {3 * PAGE}.*holds {2 * PAGE} bytes"):
        import_payload(backend, payload, 3 * PAGE, 0, 2 * PAGE)
    with pytest.raises(DriverError, match="memory type 2"):
        import_payload(backend, payload, PAGE, 2, 2 * PAGE)
    assert not payload.closed
    imported = import_payload(backend, payload, PAGE, 0, 2 * PAGE)
    assert (imported.fd, imported.writable, imported.identity) == (shared.fd, True, allocation.identity)
    imported.close()
    imported.close()
    assert payload.closed and shared.fd >= 0, "the descriptor is shared: its owner closes it"
    with pytest.raises(HandleStateError):
        import_payload(backend, payload, PAGE, 0, 2 * PAGE)
    shared.close()
    allocation.close()


def test_a_payload_is_mapped_once_for_all_imports_that_share_its_descriptor(backend: HostBackend) -> None:
    allocation = backend.allocate(2 * PAGE, 0, b"")
    shared = backend.export_fd(allocation)
    one, two = (import_payload(backend, PayloadFd(shared, True), 2 * PAGE, 0, 3 * PAGE) for _ in range(2))
    assert one.map() is one.map() is two.map() is not allocation.map()
    part = import_payload(backend, PayloadFd(shared, True), PAGE, 0, 3 * PAGE)
    assert part.map().size == PAGE
    assert not two.map(writable=False).writable
    for thing in (one, two, part, allocation):
        thing.close()
    shared.close()


def test_B104_host_memory_imports_in_place(backend: HostBackend) -> None:
    area = mmap.mmap(-1, 4 * PAGE)
    view = (ctypes.c_ubyte * (4 * PAGE)).from_buffer(area)
    address = ctypes.addressof(view)
    assert backend.host_pointer_memory_type_bits(HOST, address) == 0b11
    imported = backend.import_host_pointer(address, 2 * PAGE, 1)
    mapping = imported.map()
    assert (mapping.address, mapping.size, mapping.writable) == (address, 2 * PAGE, True)
    ctypes.memmove(mapping.address, b"in place", 8)
    assert bytes(view[:8]) == b"in place"
    assert (imported.fd, imported.identity, imported.writable, imported.memory_type_index) == (None, None, True, 1)
    with pytest.raises(UnsupportedError, match="no file descriptor"):
        backend.export_fd(imported)
    imported.close()
    imported.close()
    assert imported.closed
    with pytest.raises(HandleStateError):
        imported.map()
    assert backend.host_range_mapped(address, PAGE), "it stays the caller's"
    del view
    area.close()


def test_host_memory_that_is_not_all_there_is_refused(backend: HostBackend) -> None:
    area = mmap.mmap(-1, 4 * PAGE)
    view = (ctypes.c_ubyte * (4 * PAGE)).from_buffer(area)
    address = ctypes.addressof(view)
    libc = ctypes.CDLL(None, use_errno=True)
    assert backend.host_range_mapped(address, 4 * PAGE)
    assert libc.mprotect(ctypes.c_void_p(address + 2 * PAGE), PAGE, mmap.PROT_READ) == 0
    assert backend.host_range_mapped(address, 2 * PAGE)
    assert not backend.host_range_mapped(address, 2 * PAGE + 1)
    with pytest.raises(DriverError, match="not all of the"):
        backend.import_host_pointer(address, 4 * PAGE, 0)
    for bad_address, size in ((address + 1, PAGE), (address, PAGE + 1)):
        with pytest.raises(DriverError, match="multiples of"):
            backend.import_host_pointer(bad_address, size, 0)
    for nowhere in (0, -PAGE, PAGE, 1 << 62):
        assert not backend.host_range_mapped(nowhere, PAGE)
        assert backend.host_pointer_memory_type_bits(HOST, nowhere) == 0
    assert not backend.host_range_mapped(address, 0)
    with pytest.raises(UnsupportedError, match="HOST_MAPPED_FOREIGN_MEMORY"):
        backend.host_pointer_memory_type_bits(vk.ExternalMemoryHandleTypeFlagBits.HOST_MAPPED_FOREIGN_MEMORY, address)
    del view
    area.close()


# Buffers and binding.


def test_buffers_take_either_memory_type_and_whole_lines(backend: HostBackend) -> None:
    found = backend.buffer_requirements(vk.BufferCreateInfo(size=1000, usage=vk.BufferUsageFlagBits.TRANSFER_SRC))
    assert (found.size, found.alignment, found.memory_type_bits, found.requires_dedicated) == (1024, 64, 0b11, False)
    with pytest.raises(UnsupportedError, match="0 bytes"):
        backend.buffer_requirements(vk.BufferCreateInfo())
    foreign = vk.ExternalMemoryBufferCreateInfo(vk.ExternalMemoryHandleTypeFlagBits.D3D12_HEAP)
    with pytest.raises(UnsupportedError, match="D3D12_HEAP"):
        backend.buffer_requirements(vk.BufferCreateInfo(size=1, p_next=foreign))


def test_binding_past_the_end_is_refused(backend: HostBackend) -> None:
    allocation = backend.allocate(2048, 0, b"")
    needs = backend.create_buffer(vk.BufferCreateInfo(size=1024))
    backend.bind(allocation, 1024, needs)
    for offset in (1025, -1):
        with pytest.raises(DriverError, match="reach past"):
            backend.bind(allocation, offset, needs)
    allocation.close()


# Shortage of memory.
