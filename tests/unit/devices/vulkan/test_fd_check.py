"""No unchecked fd reaches a device in use: the error for each wrong one, and that the device is as before."""

from __future__ import annotations

import contextlib
import fcntl
import mmap
import os
import socket
import tempfile
from collections.abc import Callable, Iterator

import pytest

import extmem
from extmem import vk
from extmem.api import Device
from extmem.devices.resources import NativeResource
from extmem.devices.types import ImportRequest
from extmem.devices.vulkan import fd_check
from extmem.devices.vulkan.backend import VulkanBackend
from extmem.devices.vulkan.file_kind import FileKind, file_kind, seals_of
from extmem.devices.vulkan.logical import LogicalDevice
from extmem.devices.vulkan.physical import PhysicalDevice
from extmem.errors import DriverError, RuleViolation, UnsupportedError
from extmem.owning import OwnedFd
from extmem.sharing.payload import PayloadFd
from tests.unit.devices.importing import import_fd, import_payload
from tests.unit.devices.vulkan.forging import memory_file, of_our_kind, takes_any_content
from tests.unit.devices.vulkan.steps import (
    DMA_BUF,
    FD,
    HOST,
    SIZE,
    allocate,
    buffer_info,
    image_info,
    lowest,
    read,
    still_works,
)

INVALID = vk.Result.ERROR_INVALID_EXTERNAL_HANDLE
RULE = "VUID-VkImportMemoryFdInfoKHR-handleType-00670"


@contextlib.contextmanager
def foreign_fds() -> Iterator[dict[str, int]]:
    """Fds that are not payloads of any Vulkan driver, by what they are."""
    with contextlib.ExitStack() as stack:
        ours, theirs = socket.socketpair()
        stack.enter_context(ours)
        stack.enter_context(theirs)
        reader, writer = os.pipe()
        file = stack.enter_context(tempfile.TemporaryFile())
        file.truncate(SIZE * 4)
        fds = {
            "null": os.open("/dev/null", os.O_RDWR | os.O_CLOEXEC),
            "zero": os.open("/dev/zero", os.O_RDWR | os.O_CLOEXEC),
            "directory": os.open("/", os.O_RDONLY | os.O_CLOEXEC),
            "reading end": reader,
            "writing end": writer,
            "another memory file": memory_file("something", SIZE * 4),
            "epoll": __import__("select").epoll().fileno(),
        }
        for fd in fds.values():
            stack.callback(close, fd)
        yield {**fds, "socket": ours.fileno(), "file": file.fileno()}


def close(fd: int) -> None:
    with contextlib.suppress(OSError):  # an epoll object closes its own
        os.close(fd)


def refused(backend: VulkanBackend, fd: int, size: int = SIZE, words: str | None = None) -> DriverError:
    with pytest.raises(DriverError, match=words) as error:
        import_fd(backend, fd, size, 0)
    assert error.value.result == INVALID and error.value.devices == (backend.name,)
    return error.value


@pytest.mark.parametrize("fd", [-1, -2, -(1 << 31), 1 << 20, (1 << 31) - 1])
def test_a_number_that_is_no_fd(backend: VulkanBackend, fd: int) -> None:
    facts = backend.examine_fd(fd, FD)
    assert (facts.file_type, facts.valid, facts.self_describing) == ("closed", False, False)
    refused(backend, fd, words=f"fd {fd} is not an open file descriptor")
    assert still_works(backend)


def test_an_fd_that_was_closed(backend: VulkanBackend) -> None:
    memory = allocate(backend)
    fd = backend.export_fd(memory).take()
    assert backend.examine_fd(fd, FD).valid
    os.close(fd)
    refused(backend, fd, words="not an open file descriptor")
    memory.close()
    assert still_works(backend)


def test_fds_that_are_not_payloads_are_refused_with_what_they_are_and_stay_open(backend: VulkanBackend) -> None:
    with foreign_fds() as fds:
        for what, fd in fds.items():
            if what == "epoll":
                continue
            facts = backend.examine_fd(fd, FD)
            assert not facts.valid, what
            message = str(refused(backend, fd))
            assert f"fd {fd} is {file_kind(fd)}" in message and "vkGetMemoryFdKHR" in message, what
            os.fstat(fd)
    assert still_works(backend)


@pytest.mark.parametrize(
    ("what", "kind"),
    [("null", "device"), ("directory", "directory"), ("reading end", "pipe"), ("socket", "socket"), ("file", "file")],
)
def test_the_kind_of_file_is_known(backend: VulkanBackend, what: str, kind: str) -> None:
    with foreign_fds() as fds:
        assert backend.examine_fd(fds[what], FD).file_type == kind


def test_through_the_device_it_is_the_rule_that_reports_it(vulkan_device: Device) -> None:
    backend = vulkan_device.backend
    assert isinstance(backend, VulkanBackend)
    with foreign_fds() as fds:
        for fd in (-1, fds["null"], fds["socket"], fds["directory"], fds["file"], fds["another memory file"]):
            with pytest.raises(RuleViolation) as error:
                vulkan_device.allocate_memory(vk.MemoryAllocateInfo(SIZE, 0, vk.ImportMemoryFdInfoKHR(FD, fd)))
            assert RULE in error.value.vuids
            assert fd < 0 or os.fstat(fd)
    assert still_works(backend)


def test_a_payload_of_the_host_device_is_none_of_ours(backend: VulkanBackend) -> None:
    with extmem.open_device(kind="host") as host, host.allocate(SIZE) as memory:
        with memory.export_handle(FD) as handle:
            refused(backend, int(handle), words=r"is /memfd:extmem.*, and what .* exports as")
            with extmem.open(handle, device=host) as opened:  # it is valid on its own device
                assert opened.size == SIZE
    assert still_works(backend)


def test_the_right_name_with_rubbish_in_it_is_tried_elsewhere_and_refused(backend: VulkanBackend) -> None:
    """A likeness is not enough. Where payloads are not memory files, such a forgery cannot be made."""
    fd, forged = of_our_kind(backend, SIZE)
    if forged >= 0:
        assert backend.examine_fd(forged, FD).valid, "it resembles a payload"
        if takes_any_content(backend):
            import_fd(backend, forged, SIZE, 0).close()  # then it is memory like any other
        else:
            refused(backend, forged, words=r"whose byte \d+, which is not the payload's, differs")
        os.fstat(forged)
        os.close(forged)
    import_fd(backend, fd, SIZE, 0).close()
    os.close(fd)
    assert still_works(backend)


@pytest.mark.parametrize("size", [0, 16, 4096])
def test_a_forgery_that_is_too_small(backend: VulkanBackend, size: int) -> None:
    fd, forged = of_our_kind(backend, SIZE, lambda forged: os.ftruncate(forged, size))
    if forged >= 0:
        refused(backend, forged, words=f"is a file of {size} bytes, and {SIZE} are to be imported")
        os.close(forged)
    import_fd(backend, fd, SIZE, 0).close()
    os.close(fd)
    assert still_works(backend)


def ways_in(backend: VulkanBackend, fd: int, size: int) -> list[Callable[[], object]]:
    """Return every way by which an fd, described or not, comes to the driver."""

    def as_payload() -> None:
        owned = OwnedFd(os.dup(fd))
        payload = PayloadFd(owned, True)
        try:
            import_payload(backend, payload, size, 0, 0).close()
        finally:
            payload.close()
            owned.close()

    return [
        lambda: import_fd(backend, fd, size, 0).close(),
        lambda: import_fd(backend, fd, size, 0, trusted=True).close(),
        as_payload,
    ]


def all_refuse(backend: VulkanBackend, fd: int, size: int = SIZE) -> None:
    for import_it in ways_in(backend, fd, size):
        with pytest.raises(DriverError) as error:
            import_it()
        assert error.value.result == INVALID


def all_import(backend: VulkanBackend, fd: int, size: int = SIZE) -> None:
    for import_it in ways_in(backend, fd, size):
        import_it()


def changed(*bytes_at: tuple[int, int]) -> Callable[[int], object]:
    """Return a function that writes eight bytes, a number, at each of these places of a forgery."""
    return lambda forged: [os.pwrite(forged, number.to_bytes(8, "little"), at) for at, number in bytes_at]


@contextlib.contextmanager
def forgery(backend: VulkanBackend, *, sealed: bool = True) -> Iterator[tuple[int, int]]:
    """The fds of a payload and of an unchanged forgery of it, closed at the end. Skips where none can be forged."""
    fd, forged = of_our_kind(backend, SIZE, changed(), sealed=sealed)
    try:
        if forged < 0:
            pytest.skip("this driver's payloads are not memory files")
        yield fd, forged
    finally:
        os.close(fd)
        if forged >= 0:
            os.close(forged)


def test_a_file_without_the_drivers_seals_is_refused_on_every_way(backend: VulkanBackend) -> None:
    """It could be truncated while it is mapped. With the seals the same file is as good as the driver's own."""
    for sealed in (False, True):
        fd, forged = of_our_kind(backend, SIZE, changed(), sealed=sealed)
        if forged >= 0:
            (all_import if sealed or not seals_of(fd) else all_refuse)(backend, forged)
            os.close(forged)
        all_import(backend, fd)
        os.close(fd)
    assert still_works(backend)


@pytest.mark.parametrize("missing", [fcntl.F_SEAL_SHRINK, fcntl.F_SEAL_GROW])
def test_one_seal_that_is_missing_is_named(backend: VulkanBackend, missing: int) -> None:
    with forgery(backend, sealed=False) as (fd, forged):
        own = seals_of(fd) or 0
        if not own & missing:
            pytest.skip("this driver's payloads are not memory files with this seal")
        fcntl.fcntl(forged, fcntl.F_ADD_SEALS, own & ~missing)
        assert f"without the seals {missing:#x}, so that it can be changed" in backend.examine_fd(forged, FD).problem
        all_refuse(backend, forged)


def test_more_seals_than_the_drivers_are_fine(backend: VulkanBackend) -> None:
    seals = fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW
    with forgery(backend, sealed=False) as (fd, forged):
        fcntl.fcntl(forged, fcntl.F_ADD_SEALS, seals | (seals_of(fd) or 0))
        all_import(backend, forged)


def test_a_file_on_another_file_system_is_refused(backend: VulkanBackend) -> None:
    """A file of /dev/shm is of the same kernel code as a memory file, and has a name of its own."""
    with forgery(backend) as (fd, _), tempfile.TemporaryFile(dir="/dev/shm") as file:
        file.truncate(os.fstat(fd).st_size)
        assert file_kind(file.fileno()).difference(file_kind(fd)) == "on another file system"
        all_refuse(backend, file.fileno())


@pytest.mark.parametrize("number", [0, 16, 4097, 1 << 20, 1 << 40, (1 << 64) - 1])
def test_bytes_beside_the_payload_that_are_not_the_drivers_are_refused_on_every_way(
    backend: VulkanBackend, number: int
) -> None:
    """A driver that writes into its files trusts what it reads there, and crashes or reads elsewhere."""
    form = backend.imports.fds.form(int(FD), 0)
    for at in range(0, min(40, form.start) if form is not None else 0, 8):
        fd, forged = of_our_kind(backend, SIZE, changed((at, number)))
        if os.pread(fd, 8, at) != os.pread(forged, 8, at):
            all_refuse(backend, forged)
        os.close(fd)
        os.close(forged)
    fd, forged = of_our_kind(backend, SIZE, changed((form.start, number)) if form is not None else changed())
    if forged >= 0:
        all_import(backend, forged)  # the payload may be anything
        os.close(forged)
    os.close(fd)
    assert still_works(backend)


def test_what_is_written_beside_the_payload_after_an_import_is_seen_at_the_next(backend: VulkanBackend) -> None:
    """The writer of a named payload maps the file, and can write anywhere in it."""
    form = backend.imports.fds.form(int(FD), 0)
    memory = allocate(backend)
    fd = backend.export_fd(memory).take()
    all_import(backend, fd)
    if form is not None and form.start:
        with mmap.mmap(fd, form.start) as window:
            before, window[:16] = window[:16], bytes(range(1, 17))
            all_refuse(backend, fd)
            window[:16] = before
    all_import(backend, fd)
    os.close(fd)
    memory.close()
    assert still_works(backend)


@pytest.mark.parametrize("size", [1, 64, 100, 4096, 100_000, (1 << 20) + 1, 1 << 24])
def test_the_drivers_own_files_of_every_size_have_the_form_of_its_samples(backend: VulkanBackend, size: int) -> None:
    for dedicated in (False, True):
        buffer = backend.create_buffer(buffer_info(size, FD))
        needs = buffer.requirements
        memory = backend.allocate(
            needs.size, lowest(needs), b"", handle_types=FD, dedicated=buffer if dedicated else None
        )
        fd = backend.export_fd(memory).take()
        for import_it in ways_in(backend, fd, needs.size)[1:] if not dedicated else ():
            import_it()
        examined = backend.examine_fd(fd, int(FD))
        backend.imports.fds.check_content(ImportRequest(examined, needs.size, lowest(needs)))
        os.close(fd)
        memory.close()
        buffer.destroy()


def test_a_payload_cut_short_behind_the_exporters_back(backend: VulkanBackend) -> None:
    memory = allocate(backend, SIZE * 4)
    fd = backend.export_fd(memory).take()
    if backend.examine_fd(fd, FD).capacity and not fcntl.fcntl(fd, fcntl.F_GET_SEALS) & fcntl.F_SEAL_SHRINK:
        os.ftruncate(fd, SIZE)
        refused(backend, fd, SIZE * 4, words=f"is a file of {SIZE} bytes, and {SIZE * 4} are to be imported")
    os.close(fd)
    memory.close()
    assert still_works(backend)


@pytest.mark.parametrize("factor", [2, 16, 1 << 20])
def test_more_than_the_payload_has(backend: VulkanBackend, factor: int) -> None:
    memory = allocate(backend)
    fd = backend.export_fd(memory).take()
    refused(backend, fd, memory.size * factor)
    import_fd(backend, fd, memory.size, memory.memory_type_index).close()
    os.close(fd)
    memory.close()
    assert still_works(backend)


def test_a_good_raw_fd_is_proved_and_imported(backend: VulkanBackend) -> None:
    memory = allocate(backend)
    backend.write(memory, 0, memoryview(b"proof"))
    fd = backend.export_fd(memory).take()
    facts = backend.examine_fd(fd, FD)
    assert facts.valid and facts.writable and not facts.self_describing
    imported = import_fd(backend, fd, memory.size, memory.memory_type_index)
    os.close(fd)
    assert read(backend, imported, 0, 5) == b"proof"
    imported.close()
    memory.close()


def test_a_foreign_fd_is_tried_once_and_the_librarys_own_never(
    backend: VulkanBackend, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[LogicalDevice] = []

    class Counted(LogicalDevice):
        def __init__(self, physical: PhysicalDevice) -> None:
            super().__init__(physical)
            made.append(self)

    monkeypatch.setattr(fd_check, "LogicalDevice", Counted)
    memory = allocate(backend)
    fd = backend.export_fd(memory).take()
    import_fd(backend, fd, memory.size, memory.memory_type_index, trusted=True).close()
    assert made == []
    import_fd(backend, fd, memory.size, memory.memory_type_index).close()
    os.close(fd)
    assert len(made) == 1 and not made[0].owner.owes, "the device that it was tried on is closed"
    memory.close()


@pytest.mark.parametrize("kind", ["buffer", "image"])
def test_dedicated_memory_is_proved_with_the_identical_resource(backend: VulkanBackend, kind: str) -> None:
    def make() -> NativeResource:
        if kind == "buffer":
            return backend.create_buffer(buffer_info(types=FD))
        return backend.create_image(image_info(types=FD))

    ours, theirs = make(), make()
    needs = ours.requirements
    memory = backend.allocate(needs.size, lowest(needs), b"", handle_types=FD, dedicated=ours)
    fd = backend.export_fd(memory).take()
    imported = import_fd(backend, fd, needs.size, lowest(needs), dedicated=theirs)
    os.close(fd)
    backend.bind(imported, 0, theirs)
    assert theirs.bound
    imported.close()
    memory.close()
    ours.destroy()
    theirs.destroy()


def test_likeness_looks_through_numbers_and_deletion() -> None:
    first, second = memory_file("payload 12", 1), memory_file("payload 345", 99)
    assert file_kind(first) == file_kind(second) and str(file_kind(first)) == "/memfd:payload #"
    assert isinstance(file_kind(first), FileKind)
    with open("/dev/null", "rb") as null, open("/dev/zero", "rb") as zero:
        assert file_kind(null.fileno()) != file_kind(zero.fileno()) != file_kind(first)
    os.close(first)
    os.close(second)
    with pytest.raises(OSError, match="Bad file descriptor"):
        file_kind(first)


def test_dma_buf_where_it_is_absent_is_refused_with_the_reason(backend: VulkanBackend) -> None:
    memory = allocate(backend)
    fd = backend.export_fd(memory).take()
    if "VK_EXT_external_memory_dma_buf" not in backend.device.physical.extensions:
        with pytest.raises(UnsupportedError, match="does not import .*DMA_BUF.*`extmem devices` lists what it does"):
            backend.fd_memory_type_bits(int(DMA_BUF), fd)
        assert not backend.examine_fd(fd, int(DMA_BUF)).valid
        with pytest.raises(DriverError):
            import_fd(backend, fd, memory.size, 0, handle_type=int(DMA_BUF))
    with pytest.raises(UnsupportedError):
        backend.fd_memory_type_bits(int(FD), fd)  # never supported for an opaque type
    import_fd(backend, fd, memory.size, memory.memory_type_index).close()
    os.close(fd)
    memory.close()
    assert still_works(backend)


@pytest.mark.parametrize("kind", [DMA_BUF, HOST])
@pytest.mark.parametrize("trusted", [False, True])
def test_the_driver_is_never_asked_to_export_what_it_does_not(
    backend: VulkanBackend, monkeypatch: pytest.MonkeyPatch, kind: vk.ExternalMemoryHandleTypeFlagBits, trusted: bool
) -> None:
    """One is exported, to learn what its fds are like: with a type that the driver lacks, that may crash it.

    A dma-buf is recognized by the kernel: of that type none is exported, also where the driver has it.
    """
    asked: list[int] = []
    get_fd = backend.memories.get_fd
    monkeypatch.setattr(backend.memories, "get_fd", lambda raw, kind: (asked.append(kind), get_fd(raw, kind))[1])
    memory = allocate(backend)
    fd = backend.export_fd(memory).take()
    lacking = kind == HOST or "VK_EXT_external_memory_dma_buf" not in backend.device.physical.extensions
    facts = backend.examine_fd(fd, int(kind), trusted=trusted)
    assert kind not in asked and not facts.valid
    assert not lacking or (not facts.valid and "does not import" in facts.problem)
    assert backend.examine_fd(fd, int(FD), trusted=trusted).valid and FD in asked
    os.close(fd)
    memory.close()


def test_handles_of_windows_are_refused(backend: VulkanBackend) -> None:
    with pytest.raises(UnsupportedError, match="D3D12_RESOURCE"):
        backend.handle_memory_type_bits(int(vk.ExternalMemoryHandleTypeFlagBits.D3D12_RESOURCE), 4)
    with pytest.raises(UnsupportedError, match="HOST_MAPPED_FOREIGN_MEMORY"):
        backend.host_pointer_memory_type_bits(
            int(vk.ExternalMemoryHandleTypeFlagBits.HOST_MAPPED_FOREIGN_MEMORY), 1 << 30
        )
