"""Payloads of the host device: sealed memory files, their mappings, and what a stranger's fd may be."""

from __future__ import annotations

import contextlib
import ctypes
import errno
import fcntl
import gc
import mmap
import os
import resource
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from extmem import vk
from extmem.devices.base import DESCRIPTOR_LIMIT
from extmem.devices.host import _mapping, _memfd
from extmem.devices.host.driver import HostDriver
from extmem.errors import DriverError, HandleStateError, OutOfMemoryError, UnsupportedError

PAGE = mmap.PAGESIZE
FD = vk.ExternalMemoryHandleTypeFlagBits.OPAQUE_FD
HOST = vk.ExternalMemoryHandleTypeFlagBits.HOST_ALLOCATION


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


def open_fds() -> set[str]:
    return set(os.listdir("/proc/self/fd"))


def bytes_at(address: int, size: int) -> bytes:
    return ctypes.string_at(address, size)


# What a payload is.


def test_a_payload_is_zeroed_sealed_and_describes_itself(driver: HostDriver) -> None:
    allocation = driver.allocate(5000, 1, b"who I am")
    fd = allocation.fd
    assert os.fstat(fd).st_size == 2 * PAGE + PAGE
    assert fcntl.fcntl(fd, fcntl.F_GET_SEALS) & _memfd.SEALS == _memfd.SEALS
    assert fcntl.fcntl(fd, fcntl.F_GETFD) & fcntl.FD_CLOEXEC
    assert os.pread(fd, 5000, 0) == bytes(5000)
    for size in (0, PAGE, 100 * PAGE):
        with pytest.raises(PermissionError):
            os.ftruncate(fd, size)
    with pytest.raises(PermissionError):
        fcntl.fcntl(fd, fcntl.F_ADD_SEALS, fcntl.F_SEAL_WRITE)
    facts = driver.inspect_fd(fd, FD)
    assert (facts.valid, facts.kind, facts.writable) == (True, "memfd", True)
    assert (facts.capacity, facts.descriptor, facts.descriptor_problem) == (2 * PAGE, b"who I am", "")
    assert facts.identity == allocation.identity
    assert (allocation.size, allocation.memory_type_index, allocation.writable) == (5000, 1, True)
    allocation.close()


def test_all_of_a_payload_is_there_before_anyone_touches_it(driver: HostDriver) -> None:
    allocation = driver.allocate(8 << 20, 0, b"")
    assert os.fstat(allocation.fd).st_blocks * 512 >= 8 << 20
    allocation.close()


def test_the_longest_descriptor_fits_and_a_longer_one_leaves_nothing_behind(driver: HostDriver) -> None:
    allocation = driver.allocate(1, 0, b"d" * DESCRIPTOR_LIMIT)
    assert driver.inspect_fd(allocation.fd, FD).descriptor == b"d" * DESCRIPTOR_LIMIT
    allocation.close()
    before = open_fds()
    with pytest.raises(ValueError, match="does not fit"):
        driver.allocate(1, 0, b"d" * (DESCRIPTOR_LIMIT + 1))
    assert open_fds() == before


def test_allocations_close_once_and_mappings_outlive_them(driver: HostDriver) -> None:
    before = open_fds()
    allocation = driver.allocate(PAGE, 0, b"")
    mapping = driver.map(allocation)
    assert not allocation.closed
    driver.free(allocation)
    driver.free(allocation)
    assert allocation.closed and open_fds() == before
    with pytest.raises(HandleStateError, match="freed"):
        _ = allocation.fd
    ctypes.memset(mapping.address, 7, PAGE)
    assert bytes_at(mapping.address, 2) == b"\7\7"
    mapping.close()
    mapping.close()
    assert mapping.closed
    with pytest.raises(HandleStateError, match="closed"):
        _ = mapping.address


def test_what_is_lost_is_given_back(driver: HostDriver) -> None:
    before = open_fds()
    allocation = driver.allocate(PAGE, 0, b"")
    address = driver.map(allocation).address
    del allocation
    gc.collect()
    assert open_fds() == before
    assert not driver.host_range_mapped(address, 1)


def test_a_closed_driver_allocates_nothing_and_frees_what_there_was(driver: HostDriver) -> None:
    allocation = driver.allocate(PAGE, 0, b"")
    driver.close()
    driver.close()
    with pytest.raises(HandleStateError, match="closed"):
        driver.allocate(PAGE, 0, b"")
    driver.free(allocation)


# Mapping.


def test_B93_mappings_of_one_payload_show_the_same_bytes(driver: HostDriver) -> None:
    allocation = driver.allocate(3 * PAGE, 0, b"")
    other = driver.import_fd(driver.export_fd(allocation), 3 * PAGE, 0)
    ours, theirs = driver.map(allocation), driver.map(other)
    assert ours.address != theirs.address and ours.address % PAGE == 0
    assert ours.size == theirs.size == 3 * PAGE
    ctypes.memmove(ours.address + PAGE, b"hello", 5)
    assert bytes_at(theirs.address + PAGE, 5) == b"hello"
    assert other.identity == allocation.identity
    for thing in (ours, theirs, other, allocation):
        thing.close()


def test_the_self_description_is_outside_the_mapping(driver: HostDriver) -> None:
    allocation = driver.allocate(PAGE, 0, b"keep out")
    mapping = driver.map(allocation)
    ctypes.memset(mapping.address, 0xFF, mapping.size)
    assert driver.inspect_fd(allocation.fd, FD).descriptor == b"keep out"
    mapping.close()
    allocation.close()


def test_a_read_only_descriptor_cannot_be_mapped_for_writing(driver: HostDriver) -> None:
    allocation = driver.allocate(PAGE, 0, b"")
    fd = driver.export_fd(allocation, read_only=True)
    # The kernel itself, with nothing of ours between.
    with pytest.raises(PermissionError):
        mmap.mmap(fd, PAGE, mmap.MAP_SHARED, mmap.PROT_READ | mmap.PROT_WRITE)
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.pwrite(fd, b"x", 0)
    imported = driver.import_fd(fd, PAGE, 0)
    assert not imported.writable
    with pytest.raises(PermissionError, match="reading only"):
        driver.map(imported, writable=True)
    writer = driver.map(allocation)
    reader = driver.map(imported, writable=False)
    assert (writer.writable, reader.writable) == (True, False)
    ctypes.memmove(writer.address, b"seen", 4)
    assert bytes_at(reader.address, 4) == b"seen"
    again = driver.export_fd(imported)
    assert not driver.inspect_fd(again, FD).writable, "what came read-only goes on read-only"
    os.close(again)
    for thing in (writer, reader, imported, allocation):
        thing.close()


def test_a_payload_is_read_only_by_its_mode(driver: HostDriver) -> None:
    allocation = driver.allocate(PAGE, 0, b"")
    assert os.fstat(allocation.fd).st_mode & 0o777 == 0o444
    allocation.close()


def test_a_read_only_descriptor_cannot_be_reopened_for_writing_by_another_user(driver: HostDriver) -> None:
    if os.geteuid() != 0:
        pytest.skip("needs root, to be another user")
    allocation = driver.allocate(PAGE, 0, b"")
    fd = driver.export_fd(allocation, read_only=True)
    code = (
        "import ctypes, os\n"
        "os.setgroups([]); os.setgid(65534); os.setuid(65534)\n"
        # A process that changed its user may not look into its own /proc/self/fd until it is dumpable again.
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


def test_4096_imports_and_mappings_leave_nothing(driver: HostDriver) -> None:
    allocation = driver.allocate(PAGE, 0, b"")
    before = open_fds()
    maps = Path("/proc/self/maps").read_text().count("memfd:extmem")
    for _ in range(4096):
        imported = driver.import_fd(driver.export_fd(allocation), PAGE, 0)
        mapping = driver.map(imported)
        mapping.close()
        imported.close()
    assert open_fds() == before
    assert Path("/proc/self/maps").read_text().count("memfd:extmem") == maps
    allocation.close()


# Importing.


def test_an_import_takes_the_fd_and_a_failed_one_does_not(driver: HostDriver) -> None:
    allocation = driver.allocate(PAGE, 0, b"")
    fd = driver.export_fd(allocation)
    with pytest.raises(DriverError, match=f"allocationSize is {PAGE + 1}.*holds {PAGE} bytes") as caught:
        driver.import_fd(fd, PAGE + 1, 0)  # the page with the frame is not payload
    assert caught.value.result == vk.Result.ERROR_INVALID_EXTERNAL_HANDLE
    os.fstat(fd)
    imported = driver.import_fd(fd, PAGE, 0)
    imported.close()
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(fd)
    allocation.close()


def test_a_counted_fd_is_given_back_by_its_owner(driver: HostDriver) -> None:
    allocation = driver.allocate(PAGE, 0, b"")
    fd = driver.export_fd(allocation)
    returned = []
    imported = driver.import_fd(fd, PAGE, 0, release=lambda: returned.append(fd))
    imported.close()
    imported.close()
    assert returned == [fd]
    os.close(fd)
    with pytest.raises(DriverError, match="not open"):
        driver.import_fd(fd, PAGE, 0, release=lambda: returned.append(fd))
    assert returned == [fd]
    allocation.close()


def test_a_strange_but_sealed_memory_file_is_all_payload(driver: HostDriver) -> None:
    with open_memfd(3 * PAGE) as fd:
        facts = driver.inspect_fd(fd, FD)
        assert (facts.valid, facts.capacity, facts.descriptor) == (True, 3 * PAGE, b"")
        assert "mark of a payload" in facts.descriptor_problem
        imported = driver.import_fd(os.dup(fd), 3 * PAGE, 0)
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


def test_B104_host_memory_imports_in_place(driver: HostDriver) -> None:
    area = mmap.mmap(-1, 4 * PAGE)
    view = (ctypes.c_ubyte * (4 * PAGE)).from_buffer(area)
    address = ctypes.addressof(view)
    assert driver.host_pointer_memory_type_bits(HOST, address) == 0b11
    imported = driver.import_host_pointer(address, 2 * PAGE, 1)
    mapping = driver.map(imported)
    assert (mapping.address, mapping.size, mapping.writable) == (address, 2 * PAGE, True)
    ctypes.memmove(mapping.address, b"in place", 8)
    assert bytes(view[:8]) == b"in place"
    assert (imported.fd, imported.identity, imported.writable, imported.memory_type_index) == (None, None, True, 1)
    with pytest.raises(UnsupportedError, match="no file descriptor"):
        driver.export_fd(imported)
    mapping.close()
    driver.free(imported)
    driver.free(imported)
    assert mapping.closed and imported.closed
    with pytest.raises(HandleStateError):
        _ = mapping.address
    with pytest.raises(HandleStateError):
        driver.map(imported)
    assert driver.host_range_mapped(address, PAGE), "it stays the caller's"
    del view
    area.close()


def test_host_memory_that_is_not_all_there_is_refused(driver: HostDriver) -> None:
    area = mmap.mmap(-1, 4 * PAGE)
    view = (ctypes.c_ubyte * (4 * PAGE)).from_buffer(area)
    address = ctypes.addressof(view)
    libc = ctypes.CDLL(None, use_errno=True)
    assert driver.host_range_mapped(address, 4 * PAGE)
    assert libc.mprotect(ctypes.c_void_p(address + 2 * PAGE), PAGE, mmap.PROT_READ) == 0
    assert driver.host_range_mapped(address, 2 * PAGE)
    assert not driver.host_range_mapped(address, 2 * PAGE + 1)
    with pytest.raises(DriverError, match="not all of the"):
        driver.import_host_pointer(address, 4 * PAGE, 0)
    for bad_address, size in ((address + 1, PAGE), (address, PAGE + 1)):
        with pytest.raises(DriverError, match="multiples of"):
            driver.import_host_pointer(bad_address, size, 0)
    for nowhere in (0, -PAGE, PAGE, 1 << 62):
        assert not driver.host_range_mapped(nowhere, PAGE)
        assert driver.host_pointer_memory_type_bits(HOST, nowhere) == 0
    assert not driver.host_range_mapped(address, 0)
    with pytest.raises(UnsupportedError, match="HOST_MAPPED_FOREIGN_MEMORY"):
        driver.host_pointer_memory_type_bits(vk.ExternalMemoryHandleTypeFlagBits.HOST_MAPPED_FOREIGN_MEMORY, address)
    del view
    area.close()


# Buffers and binding.


def test_buffers_take_either_memory_type_and_whole_lines(driver: HostDriver) -> None:
    found = driver.buffer_requirements(vk.BufferCreateInfo(size=1000, usage=vk.BufferUsageFlagBits.TRANSFER_SRC))
    assert (found.size, found.alignment, found.memory_type_bits, found.requires_dedicated) == (1024, 64, 0b11, False)
    with pytest.raises(UnsupportedError, match="0 bytes"):
        driver.buffer_requirements(vk.BufferCreateInfo())
    foreign = vk.ExternalMemoryBufferCreateInfo(vk.ExternalMemoryHandleTypeFlagBits.D3D12_HEAP)
    with pytest.raises(UnsupportedError, match="D3D12_HEAP"):
        driver.buffer_requirements(vk.BufferCreateInfo(size=1, p_next=foreign))


def test_binding_past_the_end_is_refused(driver: HostDriver) -> None:
    allocation = driver.allocate(2048, 0, b"")
    needs = driver.buffer_requirements(vk.BufferCreateInfo(size=1024))
    driver.bind(allocation, 1024, needs)
    for offset in (1025, -1):
        with pytest.raises(DriverError, match="reach past"):
            driver.bind(allocation, offset, needs)
    allocation.close()


# Running out.


@pytest.mark.parametrize(("size", "kind"), [(0, 0), (-1, 0), (PAGE, 2), (PAGE, -1)])
def test_impossible_sizes_and_types_never_reach_the_kernel(driver: HostDriver, size: int, kind: int) -> None:
    with pytest.raises(DriverError, match="are asked for"):
        driver.allocate(size, kind, b"")


def test_more_than_the_heap_is_out_of_device_memory(driver: HostDriver) -> None:
    heap = driver.memory_properties().memory_heaps[0].size
    for size in (heap + 1, 1 << 62, 1 << 80):
        with pytest.raises(OutOfMemoryError, match=f"the heap has {heap}") as caught:
            driver.allocate(size, 0, b"")
        assert caught.value.result == vk.Result.ERROR_OUT_OF_DEVICE_MEMORY


@contextlib.contextmanager
def limit(kind: int, value: int) -> Iterator[None]:
    soft, hard = resource.getrlimit(kind)
    resource.setrlimit(kind, (value, hard))
    try:
        yield
    finally:
        resource.setrlimit(kind, (soft, hard))


def test_a_file_size_limit_is_a_clear_error_and_leaves_nothing(driver: HostDriver) -> None:
    before = open_fds()
    with limit(resource.RLIMIT_FSIZE, 1 << 20):
        driver.allocate(PAGE, 0, b"").close()
        with pytest.raises(OutOfMemoryError, match="1048576 bytes; raise `ulimit -f`") as caught:
            driver.allocate(1 << 21, 0, b"")
    assert caught.value.result == vk.Result.ERROR_OUT_OF_DEVICE_MEMORY
    assert open_fds() == before
    driver.allocate(1 << 21, 0, b"").close()


def test_a_full_descriptor_table_is_a_clear_error(driver: HostDriver) -> None:
    allocation = driver.allocate(PAGE, 0, b"")
    held = []
    with limit(resource.RLIMIT_NOFILE, 64):
        try:
            while True:
                held.append(os.dup(allocation.fd))
        except OSError as error:
            assert error.errno == errno.EMFILE
        for action in (lambda: driver.allocate(PAGE, 0, b""), lambda: driver.export_fd(allocation)):
            with pytest.raises(OutOfMemoryError, match="64 descriptors open.*ulimit -n") as caught:
                action()
            assert caught.value.result == vk.Result.ERROR_TOO_MANY_OBJECTS
        mapping = driver.map(allocation)  # needs no descriptor
        mapping.close()
    for fd in held:
        os.close(fd)
    driver.allocate(PAGE, 0, b"").close()
    allocation.close()


def test_no_address_space_is_a_clear_error(driver: HostDriver) -> None:
    allocation = driver.allocate(64 << 20, 0, b"")
    used = int(Path("/proc/self/statm").read_text().split()[0]) * PAGE
    with limit(resource.RLIMIT_AS, used + (16 << 20)):
        with pytest.raises(OutOfMemoryError, match="vm.max_map_count"):
            driver.map(allocation)
    driver.map(allocation).close()
    allocation.close()


def test_an_older_kernel_without_noexec_seals_makes_payloads_too(
    driver: HostDriver, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, asked = os.memfd_create, []

    def older(name: str, flags: int) -> int:
        asked.append(flags)
        if flags & 0x8:
            raise OSError(errno.EINVAL, "Invalid argument")
        return real(name, flags)

    monkeypatch.setattr(os, "memfd_create", older)
    allocation = driver.allocate(PAGE, 0, b"d")
    assert len(asked) == 2 and driver.inspect_fd(allocation.fd, FD).valid
    allocation.close()


def test_an_interrupted_allocation_leaves_nothing(driver: HostDriver, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(fd: int, size: int) -> None:
        raise KeyboardInterrupt

    before = open_fds()
    monkeypatch.setattr(_memfd._reserve, "reserve", interrupted)
    with pytest.raises(KeyboardInterrupt):
        driver.allocate(PAGE, 0, b"")
    assert open_fds() == before


def test_a_mapping_of_no_file_is_the_errors_own() -> None:
    with pytest.raises(OSError, match="mmap of 4096 bytes: Bad file descriptor"):
        _mapping.HostMapping(-1, 4096, writable=False)


def test_other_errors_of_the_os_stay_what_they_are() -> None:
    error = OSError(errno.EIO, "broken")
    assert _memfd.out_of_memory(error, "vkAllocateMemory", "anything") is error
    for code in (errno.ENOMEM, errno.ENOSPC, errno.ENFILE):
        assert isinstance(_memfd.out_of_memory(OSError(code, ""), "vkAllocateMemory", "anything"), OutOfMemoryError)
