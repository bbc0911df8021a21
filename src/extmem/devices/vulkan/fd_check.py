"""The check of a file descriptor: no unproven fd reaches a device in use.

How this works. Drivers trust the descriptors that they are given. One of them answers an import of a bad fd with
VK_ERROR_OUT_OF_DEVICE_MEMORY and refuses every allocation of the process from then on, until that VkDevice is
destroyed; another takes a file that is too small. So an fd is checked in three steps:

1. *Examination* (`FdCheck.examine`), the one look at an fd: what it is (type of file, device number, its link in /proc,
   at least the same seals) must be what the exports of this driver are. A tiny allocation is exported once per device
   to find that out. A driver that exports no fds of the type is not asked to; then the fd must be a file that some
   driver may export. A dma-buf may be any driver's: the kernel identifies one, and reports its size.
2. *Content* (`FdCheck.check_content`): the file is long enough, and where payloads are regular files, the bytes that
   are not the payload's are as in the driver's own samples (`file_form`), since the driver trusts them.
3. *Proof* (`FdCheck.prove`): the fd is imported, with the size, memory type and dedicated resource of the real import,
   on a VkDevice made for nothing else, which is destroyed before the real import.

A failure for lack of memory or descriptors, or because a device is lost, is raised as that: the fd did not cause it.

A payload of the object manager was exported through this library, and so was the fd that an `FdHandle` of this
library's own export owns, in this process or another one of the same user. These are trusted: their link is not read,
and they are not proved. The other checks are made at each import: the number may have been closed by other code and be
another file's by now, and a process that may write to the payload may have written beside it.

The checks are no lock. A process that may write to a driver's file can change it between the check and the import, or
at any time afterwards, and drivers read these bytes again when memory is freed. Where the file has no F_SEAL_SHRINK,
a process that has it can truncate it under those that mapped it. Neither can be prevented here: the driver makes such
files.
"""

from __future__ import annotations

import os
import stat
from typing import TYPE_CHECKING, Any

import msgspec

from extmem import vk
from extmem.devices import descriptor_shortage
from extmem.devices.types import ExaminedFd
from extmem.devices.vulkan import dma_buf
from extmem.devices.vulkan.capabilities import Answers, supported
from extmem.devices.vulkan.file_form import Form, Sample, learn
from extmem.devices.vulkan.file_kind import FILE_TYPES, FileKind, file_kind, kind_of
from extmem.devices.vulkan.logical import LogicalDevice
from extmem.devices.vulkan.memory import Memories
from extmem.devices.vulkan.resources import Resources
from extmem.errors import DriverError
from extmem.owning import out_of_descriptors
from extmem.vk.handle_types import DMA_BUF, OPAQUE_FD, MemoryHandleType
from extmem.vk.value_text import types_text

if TYPE_CHECKING:
    from extmem.devices.types import ImportRequest
    from extmem.devices.vulkan.transfers import Transfers
    from extmem.owning import OwnedFd

__all__ = ["FdCheck"]

HandleType = vk.ExternalMemoryHandleTypeFlagBits
_COPYING = vk.BufferUsageFlagBits.TRANSFER_SRC | vk.BufferUsageFlagBits.TRANSFER_DST
_PROBE = 65_536
"""Bytes of the allocation whose fd is examined."""
_SAMPLES = (_PROBE, 100_000)
"""Bytes of the allocations whose files are compared. One is not a multiple of a page: drivers may round sizes up."""
_MARK = 16
_read_at: Any = getattr(os, "pread", None)
_EXPORTABLE = int(vk.ExternalMemoryFeatureFlagBits.EXPORTABLE)
_DEDICATED_ONLY = int(vk.ExternalMemoryFeatureFlagBits.DEDICATED_ONLY)
_DRIVER_FILES = ("/memfd:", "/dmabuf:", "/dev/", "anon_inode:")
"""Beginnings of the links of files that drivers export."""
_NOT_THE_FD = frozenset(
    (
        vk.Result.ERROR_OUT_OF_HOST_MEMORY,
        vk.Result.ERROR_TOO_MANY_OBJECTS,
        vk.Result.ERROR_DEVICE_LOST,
        vk.Result.ERROR_INITIALIZATION_FAILED,
    )
)
"""Results of an import that the fd does not cause."""


class FdCheck:
    """The checks of one device, and what it has found out about the files of its driver."""

    def __init__(self, device: LogicalDevice, memories: Memories, resources: Resources, transfers: Transfers) -> None:
        self._device = device
        self._memories = memories
        self._resources = resources
        self._transfers = transfers
        self._own: dict[MemoryHandleType, FileKind | None] = {}
        self._forms: dict[tuple[MemoryHandleType, int], Form | None] = {}

    # The driver's own files.

    def own(self, handle_type: MemoryHandleType) -> FileKind | None:
        """What this driver's exports of an opaque type are; None where it exports none, and is not asked to.

        Errors: UnsupportedError for a type that it does not know; as `Backend.allocate`.
        """
        if handle_type in self._own:
            return self._own[handle_type]
        if not self._imports_type(handle_type):
            raise self._device.unsupported_type(handle_type)
        own: FileKind | None = None
        if self._features(handle_type) & _EXPORTABLE:
            fd = self.sample_fd(handle_type)
            try:
                own = file_kind(fd.fd)
            finally:
                fd.close()
        self._own[handle_type] = own
        return own

    def _features(self, handle_type: MemoryHandleType) -> int:
        query = vk.PhysicalDeviceExternalBufferInfo(usage=_COPYING, handle_type=HandleType(handle_type))
        answer = Answers(self._device.physical).external_buffer_properties(query).external_memory_properties
        return int(answer.external_memory_features)

    def _imports_type(self, handle_type: MemoryHandleType) -> bool:
        """Whether the device has this type of fds. A driver that is asked for others may crash."""
        return handle_type in (OPAQUE_FD, DMA_BUF) and supported(self._device.physical, handle_type)

    def sample_fd(self, handle_type: MemoryHandleType) -> OwnedFd:
        """An fd as this driver exports them, of memory that is freed again."""
        external = vk.ExternalMemoryBufferCreateInfo(HandleType(handle_type))
        with self._resources.temporary(vk.BufferCreateInfo(size=_PROBE, usage=_COPYING, p_next=external)) as buffer:
            needs = buffer.requirements
            index = (needs.memory_type_bits & -needs.memory_type_bits).bit_length() - 1
            sample = self._memories.allocate(needs.size, index, b"", handle_types=handle_type, dedicated=buffer)
            try:
                return self._memories.get_fd(sample.live, handle_type)
            finally:
                sample.close()

    def form(self, handle_type: MemoryHandleType, memory_type: int) -> Form | None:
        """What this driver's files contain besides the payload; None where they are not files, or it is not known.

        Errors: as `own`.
        """
        key = handle_type, memory_type
        if key not in self._forms:
            self._forms[key] = self._learn_form(handle_type, memory_type)
        return self._forms[key]

    def _learn_form(self, handle_type: MemoryHandleType, memory_type: int) -> Form | None:
        own, visible = self.own(handle_type), self._device.host_visible
        if own is None or own.mode != stat.S_IFREG:
            return None
        if not (0 <= memory_type < len(visible) and visible[memory_type]):
            return None
        if self._features(handle_type) & _DEDICATED_ONLY:
            return None  # a file may contain what its memory is dedicated to, and two samples do not show which words
        first = self._sample(handle_type, memory_type, _SAMPLES[0], True)
        second = self._sample(handle_type, memory_type, _SAMPLES[1], False)
        return learn([first, second]) if first is not None and second is not None else None

    def _sample(self, handle_type: MemoryHandleType, memory_type: int, size: int, is_dedicated: bool) -> Sample | None:
        """A file of the driver's, of memory that is freed again; None where such memory is of another type."""
        memories, transfers = self._memories, self._transfers
        external = vk.ExternalMemoryBufferCreateInfo(HandleType(handle_type))
        with self._resources.temporary(vk.BufferCreateInfo(size=size, usage=_COPYING, p_next=external)) as buffer:
            needs, dedicated = buffer.requirements, buffer if is_dedicated else None
            if not needs.memory_type_bits >> memory_type & 1:
                return None
            sample = memories.allocate(needs.size, memory_type, b"", handle_types=handle_type, dedicated=dedicated)
            try:
                first, last = os.urandom(_MARK), os.urandom(_MARK)
                transfers.write(sample, 0, memoryview(first))
                transfers.write(sample, needs.size - _MARK, memoryview(last))
                fd = memories.get_fd(sample.live, handle_type)
                try:
                    return Sample(needs.size, _read_at(fd.fd, os.fstat(fd.fd).st_size, 0), first, last)
                finally:
                    fd.close()
            finally:
                sample.close()

    # An fd that is to be imported.

    def examine(self, fd: int, handle_type: MemoryHandleType, *, trusted: bool = False) -> ExaminedFd:
        """See `Backend.examine_fd`. Errors: as `own`, where a sample is needed and fails."""
        try:
            status = os.fstat(fd) if fd >= 0 else None
        except OSError:
            status = None
        if status is None:
            problem = f"fd {fd} is not an open file descriptor"
            return ExaminedFd(fd, handle_type, "closed", problem, self_describing=False)
        file_type = FILE_TYPES.get(stat.S_IFMT(status.st_mode), "other")
        if handle_type not in self._own and not self._imports_type(handle_type):
            problem = str(self._device.unsupported_type(handle_type))
            return ExaminedFd(fd, handle_type, file_type, problem, self_describing=False)
        capacity = self._capacity(fd, status, handle_type)
        problem = self._difference(fd, status, handle_type, capacity, trusted)
        if problem:
            return ExaminedFd(fd, handle_type, file_type, problem, self_describing=False)
        return ExaminedFd(
            fd,
            handle_type,
            file_type,
            size=capacity or status.st_size,
            capacity=capacity,
            writable=True,
            identity=(status.st_dev, status.st_ino),
            self_describing=False,
            trusted=trusted,
        )

    def _difference(
        self, fd: int, status: os.stat_result, handle_type: MemoryHandleType, capacity: int | None, trusted: bool
    ) -> str:
        """Why this fd cannot be a payload of that type; empty where it may be one. trusted: its link is not read."""
        if handle_type == DMA_BUF:
            if capacity is not None:
                return ""
            link = kind_of(fd, status, True)
            return f"fd {fd} is {link}, and the kernel does not call it a dma-buf; pass the fd that its exporter gave"
        own = self.own(handle_type)
        if trusted and own is not None and not kind_of(fd, status, False).difference(own):
            return ""
        seen, word = kind_of(fd, status, True), types_text(handle_type)
        if own is None:
            if seen.mode not in (stat.S_IFIFO, stat.S_IFSOCK) and seen.link.startswith(_DRIVER_FILES):
                return ""
            return f"fd {fd} is {seen}, which no driver exports as {word}; pass the fd that vkGetMemoryFdKHR gave"
        difference = seen.difference(own)
        if seen.link == own.link and not difference:
            return ""
        how = f" ({difference})" if seen.link == own.link else ""
        return (
            f"fd {fd} is {seen}{how}, and what {self._device.name} exports as {word} is {own}; pass the fd that "
            "vkGetMemoryFdKHR gave, or a copy of it"
        )

    def _capacity(self, fd: int, status: os.stat_result, handle_type: MemoryHandleType) -> int | None:
        """Bytes of the file, as far as the kernel reports them: for a dma-buf, and for a regular file; else None.

        0 is a size: that of an empty file.
        """
        if handle_type == DMA_BUF:
            try:
                return dma_buf.size_of(fd)
            except OSError as error:
                if descriptor_shortage.is_of_descriptors(error):
                    raise out_of_descriptors(error, "vkAllocateMemory") from None
                return None
        return status.st_size if status.st_size or stat.S_ISREG(status.st_mode) else None

    def check(self, request: ImportRequest[ExaminedFd]) -> None:
        """Check everything about an examined fd that is to be imported.

        Errors: DriverError with VK_ERROR_INVALID_EXTERNAL_HANDLE; as `prove`, for an fd that is not trusted.
        """
        examined = request.source
        if examined.problem:
            raise self.refusal(examined.problem)
        self.check_content(request)
        if not examined.trusted:
            self.prove(request)

    def check_content(self, request: ImportRequest[ExaminedFd]) -> None:
        """Refuse a file that is shorter than the import, or has other bytes than the driver's own beside the payload.

        Drivers map it, so that a process that touches its missing end is killed; and they trust what they wrote there.
        Errors: DriverError with VK_ERROR_INVALID_EXTERNAL_HANDLE.
        """
        examined, size = request.source, request.size
        fd, capacity, handle_type = examined.fd, examined.capacity, examined.handle_type
        if capacity is None:
            return
        if capacity < size:
            # The number is not in the message: it may be that of a copy, which means nothing to the caller.
            raise self.refusal(f"the fd is a file of {capacity} bytes, and {size} are to be imported from it")
        form = self.form(handle_type, request.memory_type) if handle_type != DMA_BUF else None
        if not form:
            return
        try:
            head = _read_at(fd, form.head.size, 0) if form.head.size else b""
            tail = _read_at(fd, form.tail.size, capacity - form.tail.size) if form.tail.size else b""
        except OSError as error:
            raise self.refusal(f"the fd cannot be read ({error.strerror})") from None
        problem = form.problem(head, tail, capacity, size)
        if problem:
            raise self.refusal(f"the fd is {problem}")

    def prove(self, request: ImportRequest[ExaminedFd]) -> None:
        """Import the fd on a device of its own. The fd stays the caller's.

        Errors: DriverError with VK_ERROR_INVALID_EXTERNAL_HANDLE where the fd is refused; errors that the fd does not
        cause (OutOfMemoryError, DriverError with VK_ERROR_DEVICE_LOST) as they are.
        """
        refused = self._refused(request)
        if refused is None:
            return
        if refused.result in _NOT_THE_FD:
            raise refused
        size, memory_type = request.size, request.memory_type
        if refused.result == vk.Result.ERROR_OUT_OF_DEVICE_MEMORY:
            self._check_room(memory_type)
        raise self.refusal(
            f"the fd was tried on a device of its own and refused there ({refused}): it is not a payload of "
            f"{self._device.name}, or of another size or memory type than {size} bytes of type {memory_type}"
        ) from refused

    def _refused(self, request: ImportRequest[ExaminedFd]) -> DriverError | None:
        """The error of the import on a device of its own, which is destroyed then; None where it succeeds."""
        witness = LogicalDevice(self._device.physical)
        try:
            dedicated = request.dedicated
            resource = Resources(witness).recreate(dedicated) if dedicated is not None else None
            try:
                Memories(witness).import_fd(msgspec.structs.replace(request, dedicated=resource)).close()
            except DriverError as error:
                return error
            finally:
                if resource is not None:
                    resource.destroy()
        finally:
            witness.close()
        return None

    def _check_room(self, memory_type: int) -> None:
        """Raise OutOfMemoryError where the device has no memory of this type at all: then the fd is not at fault.

        Drivers answer a bad fd with a lack of memory, too.
        """
        witness = LogicalDevice(self._device.physical)
        try:
            Memories(witness).allocate(_PROBE, memory_type, b"").close()
        finally:
            witness.close()

    def refusal(self, problem: str) -> DriverError:
        """What to raise for an fd that is not imported."""
        return DriverError(
            f"vkAllocateMemory: {problem}; pass the fd that vkGetMemoryFdKHR gave, with the exporter's size and "
            "type; a payload whose file somebody has changed has to be allocated anew by its exporter",
            result=int(vk.Result.ERROR_INVALID_EXTERNAL_HANDLE),
            command="vkAllocateMemory",
            devices=[self._device.name],
        )
