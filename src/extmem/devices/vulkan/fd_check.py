"""No unproven fd reaches a device in use.

How this works. Drivers believe what they are given. One of them answers an import of a bad fd with
VK_ERROR_OUT_OF_DEVICE_MEMORY and refuses every allocation of the process from then on, until that VkDevice is
destroyed; another takes too small a file. So a stranger's fd goes through two gates:

1. *Likeness*: what the fd is (kind of file, device number, its link in /proc, at least the same seals) must be what
   this driver's own exports are. A tiny allocation of ours is exported once per device, and looked at. A driver that
   exports none is not asked to; then the fd must be a file that some driver may give. A dma-buf may be any driver's:
   the kernel tells one, and its size. Where payloads are regular files, the bytes of the file that are not the
   payload's are compared with those of own samples, too (`file_form`): the driver believes them.
2. *Proof*: it is imported, with the size, memory type and dedicated resource of the real import, on a VkDevice made
   for nothing else, which is destroyed before the real import.

What fails here for want of memory or descriptors, or since a device is lost, is raised as that: it is not the fd's
fault.

What the object manager hands out was exported through this library, and is known by its object; so is what an
`FdHandle` of this library's own export owns, in this process or another of the same user's. These are not proven, and
their link is not looked at. All else of the first gate is looked at at each import: the number may have been closed
behind the handle's back and be another file's by now, and whoever may write to the payload may have written beside it.

The look is no lock. Whoever may write to a driver's file can change it between the look and the driver's own, or at any
time afterwards, and drivers read these bytes again when memory is freed. Where the file has no F_SEAL_SHRINK, whoever
has it can cut it off under those who mapped it. Neither can be prevented here: it is the driver that makes such files.
"""

from __future__ import annotations

import importlib
import os
import re
import stat
from typing import TYPE_CHECKING, Any, NamedTuple

from extmem import vk
from extmem.devices import descriptor_shortage
from extmem.devices.backend import FdFacts
from extmem.devices.vulkan import dma_buf
from extmem.devices.vulkan.capabilities import supported
from extmem.devices.vulkan.file_form import Form, Sample, learn
from extmem.errors import DriverError
from extmem.owning import out_of_descriptors

if TYPE_CHECKING:
    from extmem.devices.resources import NativeResource
    from extmem.devices.vulkan.backend import VulkanBackend
    from extmem.owning import OwnedFd

__all__ = ["Likeness", "Prover", "likeness"]

HandleType = vk.ExternalMemoryHandleTypeFlagBits
_WORDS = {
    stat.S_IFSOCK: "socket",
    stat.S_IFDIR: "directory",
    stat.S_IFIFO: "pipe",
    stat.S_IFCHR: "device",
    stat.S_IFBLK: "device",
    stat.S_IFREG: "file",
}
_FDS = (HandleType.OPAQUE_FD, HandleType.DMA_BUF)
_ALIKE = FdFacts("known", writable=True, self_describing=False)
_COPYING = vk.BufferUsageFlagBits.TRANSFER_SRC | vk.BufferUsageFlagBits.TRANSFER_DST
_FILE_TYPE = stat.S_IFMT(0o177777)
_PROBE = 65_536
"""Bytes of the allocation that is looked at."""
_SAMPLES = (_PROBE, 100_000)
"""Bytes of the allocations whose files are compared. One is no multiple of a page: drivers may round sizes up."""
_MARK = 16
_DMA_BUF = int(HandleType.DMA_BUF)
_EXPORTABLE = int(vk.ExternalMemoryFeatureFlagBits.EXPORTABLE)
_DEDICATED_ONLY = int(vk.ExternalMemoryFeatureFlagBits.DEDICATED_ONLY)
_DRIVERS = ("/memfd:", "/dmabuf:", "/dev/", "anon_inode:")
"""Beginnings of the links of files that drivers give."""
_NO_FAULT = frozenset(
    (
        vk.Result.ERROR_OUT_OF_HOST_MEMORY,
        vk.Result.ERROR_TOO_MANY_OBJECTS,
        vk.Result.ERROR_DEVICE_LOST,
        vk.Result.ERROR_INITIALIZATION_FAILED,
    )
)
"""Results of an import that say nothing of the fd."""


class Likeness(NamedTuple):
    """What an fd looks like from outside: file type, device number of a device file, and its link without numbers.

    Of a regular file also the file system that it is on, and its seals; None where files there have none.
    """

    mode: int
    rdev: int
    link: str
    file_system: int = 0
    seals: int | None = None

    def __str__(self) -> str:
        return self.link

    def differs(self, own: Likeness) -> str:
        """Why the file is not of the kind of the driver's own, the link aside; empty where it is of that kind."""
        if (self.mode, self.rdev) != (own.mode, own.rdev):
            return "a file of another kind"
        if self.file_system != own.file_system:
            return "on another file system"
        lacking = (own.seals or 0) & ~(self.seals or 0)
        return f"without the seals {lacking:#x}, so that it can be changed under those who mapped it" if lacking else ""


def likeness(fd: int, *, link: bool = True) -> Likeness:
    """Look at an fd. link: whether its link is looked at, too. OSError (EBADF) if it is not open."""
    return _of_file(fd, os.fstat(fd), link)


def _of_file(fd: int, found: os.stat_result, link: bool) -> Likeness:
    text = ""
    if link:
        try:
            text = os.readlink(f"/proc/self/fd/{fd}")
        except OSError:
            text = _WORDS.get(stat.S_IFMT(found.st_mode), "anonymous")
        text = re.sub(r"\d+", "#", text.removesuffix(" (deleted)"))
    mode = found.st_mode & _FILE_TYPE
    if mode == stat.S_IFREG:
        return Likeness(mode, 0, text, found.st_dev, seals_of(fd))
    return Likeness(mode, int(getattr(found, "st_rdev", 0)), text)  # not every platform has the number


def _find_fcntl() -> Any:
    try:
        return importlib.import_module("fcntl")
    except ImportError:
        return None  # Windows, where drivers give no fds


_FCNTL = _find_fcntl()
_read_at: Any = getattr(os, "pread", None)


def seals_of(fd: int) -> int | None:
    """The seals of a memory file (F_GET_SEALS); None for other files."""
    try:
        return int(_FCNTL.fcntl(fd, _FCNTL.F_GET_SEALS))
    except OSError:
        return None


class Prover:
    """The gates of one device."""

    def __init__(self, backend: VulkanBackend) -> None:
        self._backend = backend
        self._own: dict[int, Likeness | None] = {}
        self._forms: dict[tuple[int, int], Form | None] = {}

    def own(self, handle_type: int) -> Likeness | None:
        """What this driver's exports of an opaque type look like; None where it exports none, and is not asked to.

        Errors: UnsupportedError for a type that it does not know; as `Backend.allocate`.
        """
        if handle_type in self._own:
            return self._own[handle_type]
        if not self._gives_fds(handle_type):
            raise self._backend.unsupported_type(handle_type)
        known: Likeness | None = None
        if self._exports(handle_type):
            fd = self.probe(handle_type)
            try:
                known = likeness(fd.fd)
            finally:
                fd.close()
        self._own[handle_type] = known
        return known

    def in_files(self, handle_type: int) -> bool:
        """Whether payloads of a type are regular files. Errors: as `own`."""
        own = self.own(handle_type) if handle_type != _DMA_BUF else None
        return own is not None and own.mode == stat.S_IFREG

    def _exports(self, handle_type: int) -> bool:
        return bool(self._features(handle_type) & _EXPORTABLE)

    def _features(self, handle_type: int) -> int:
        asked = vk.PhysicalDeviceExternalBufferInfo(usage=_COPYING, handle_type=HandleType(handle_type))
        return int(self._backend.external_buffer_properties(asked).external_memory_properties.external_memory_features)

    def _gives_fds(self, handle_type: int) -> bool:
        """Whether the device exports fds as that type. One that is asked to where it does not may crash."""
        return handle_type in _FDS and supported(self._backend.physical, handle_type)

    def probe(self, handle_type: int) -> OwnedFd:
        """An fd as this driver exports them, of memory that is freed again."""
        external = vk.ExternalMemoryBufferCreateInfo(HandleType(handle_type))
        with self._backend.temporary(vk.BufferCreateInfo(size=_PROBE, usage=_COPYING, p_next=external)) as buffer:
            needs = buffer.requirements
            index = (needs.memory_type_bits & -needs.memory_type_bits).bit_length() - 1
            probe = self._backend.allocate(needs.size, index, b"", handle_types=handle_type, dedicated=buffer)
            try:
                return self._backend.get_fd(probe.live, handle_type)
            finally:
                probe.close()

    def form(self, handle_type: int, memory_type_index: int) -> Form | None:
        """What this driver's files contain besides the payload; None where they are no files, or nobody can tell.

        Errors: as `own`.
        """
        key = handle_type, memory_type_index
        if key not in self._forms:
            self._forms[key] = self._learn(handle_type, memory_type_index)
        return self._forms[key]

    def _learn(self, handle_type: int, memory_type_index: int) -> Form | None:
        visible = self._backend.host_visible
        if not self.in_files(handle_type) or not (0 <= memory_type_index < len(visible) and visible[memory_type_index]):
            return None
        if self._features(handle_type) & _DEDICATED_ONLY:
            return None  # a file may show what its memory is dedicated to, and no two samples show which words do
        first = self._sample(handle_type, memory_type_index, _SAMPLES[0], True)
        second = self._sample(handle_type, memory_type_index, _SAMPLES[1], False)
        return learn([first, second]) if first is not None and second is not None else None

    def _sample(self, handle_type: int, memory_type_index: int, size: int, alone: bool) -> Sample | None:
        """A file of the driver's, of memory that is freed again. alone: whether the memory is dedicated to a buffer."""
        backend = self._backend
        external = vk.ExternalMemoryBufferCreateInfo(HandleType(handle_type))
        with backend.temporary(vk.BufferCreateInfo(size=size, usage=_COPYING, p_next=external)) as buffer:
            needs, dedicated = buffer.requirements, buffer if alone else None
            if not needs.memory_type_bits >> memory_type_index & 1:
                return None
            made = backend.allocate(needs.size, memory_type_index, b"", handle_types=handle_type, dedicated=dedicated)
            try:
                first, last = os.urandom(_MARK), os.urandom(_MARK)
                backend.write(made, 0, memoryview(first))
                backend.write(made, needs.size - _MARK, memoryview(last))
                fd = backend.get_fd(made.live, handle_type)
                try:
                    return Sample(needs.size, _read_at(fd.fd, os.fstat(fd.fd).st_size, 0), first, last)
                finally:
                    fd.close()
            finally:
                made.close()

    def inspect(self, fd: int, handle_type: int) -> FdFacts:
        """The first gate. Never raises for what it finds. Errors: as `own`, where a sample is needed and fails."""
        try:
            found = os.fstat(fd) if fd >= 0 else None
        except OSError:
            found = None
        if found is None:
            return FdFacts("closed", f"fd {fd} is no open file descriptor", self_describing=False)
        kind = _WORDS.get(stat.S_IFMT(found.st_mode), "other")
        if not self._gives_fds(handle_type):
            return FdFacts(kind, str(self._backend.unsupported_type(handle_type)), self_describing=False)
        capacity = self._capacity(fd, found, handle_type)
        problem = self._unlike(fd, handle_type, capacity)
        if problem:
            return FdFacts(kind, problem, self_describing=False)
        return FdFacts(
            kind,
            size=capacity or found.st_size,
            capacity=capacity or 0,
            writable=True,
            identity=(found.st_dev, found.st_ino),
            self_describing=False,
        )

    def _unlike(self, fd: int, handle_type: int, capacity: int | None) -> str:
        """Why this fd cannot be a payload of that type, from outside; empty where it may be one."""
        seen, word = likeness(fd), HandleType(handle_type).name
        if handle_type == _DMA_BUF:
            if capacity is not None:
                return ""
            return f"fd {fd} is {seen}, and the kernel does not call it a dma-buf; pass the fd that its exporter gave"
        own = self.own(handle_type)
        if own is None:
            if seen.mode != stat.S_IFIFO and seen.mode != stat.S_IFSOCK and seen.link.startswith(_DRIVERS):
                return ""
            return f"fd {fd} is {seen}, which no driver gives as {word}; pass the fd that vkGetMemoryFdKHR gave"
        differs = seen.differs(own)
        if seen.link == own.link and not differs:
            return ""
        how = f" ({differs})" if seen.link == own.link else ""
        return (
            f"fd {fd} is {seen}{how}, and what {self._backend.name} exports as {word} is {own}; pass the fd that "
            "vkGetMemoryFdKHR gave, or a copy of it"
        )

    def _capacity(self, fd: int, found: os.stat_result, handle_type: int) -> int | None:
        """Bytes of the file, as far as the kernel says: for a dma-buf, and for a regular file. None where it does not.

        0 is a size: that of an empty file.
        """
        if handle_type == _DMA_BUF:
            try:
                return dma_buf.size_of(fd)
            except OSError as error:
                if descriptor_shortage.is_of_descriptors(error):
                    raise out_of_descriptors(error, "vkAllocateMemory") from None
                return None
        return found.st_size if found.st_size or stat.S_ISREG(found.st_mode) else None

    def glance(self, fd: int, handle_type: int) -> FdFacts:
        """The first gate for what this library exported itself: a full inspection only where the file looks wrong."""
        try:
            if self._gives_fds(handle_type) and self.resembles(fd, handle_type):
                return _ALIKE
        except OSError:
            pass  # the inspection says why
        return self.inspect(fd, handle_type)

    def resembles(self, fd: int, handle_type: int) -> bool:
        """The first gate without link and content, for what this library or the object manager hands out."""
        found = os.fstat(fd)
        if handle_type == _DMA_BUF:
            return self._capacity(fd, found, handle_type) is not None
        own = self.own(handle_type)
        if own is None:
            return not self._unlike(fd, handle_type, None)
        return not _of_file(fd, found, False).differs(own)

    def recognise(self, fd: int, size: int, handle_type: int, memory_type_index: int) -> tuple[int, bytes]:
        """`resembles` and `measure`. Errors: DriverError.

        The file's bytes, and what it has before the payload.
        """
        try:
            if not self.resembles(fd, handle_type):
                raise self._refusal(f"fd {fd} is no file as {self._backend.name} exports them")
            return self.measure(fd, size, handle_type, memory_type_index)
        except OSError:
            raise self._refusal(f"fd {fd} is no open file descriptor") from None

    def measure(self, fd: int, size: int, handle_type: int, memory_type_index: int) -> tuple[int, bytes]:
        """Refuse a file that is shorter than the import, or has other bytes than the driver's own beside the payload.

        Drivers map it, and whoever touches its end is killed; and they believe what they wrote there themselves.
        Returns and errors: as `recognise`.
        """
        capacity = self._capacity(fd, os.fstat(fd), handle_type)
        if capacity is not None and capacity < size:
            raise self._too_short(capacity, size)
        form = self.form(handle_type, memory_type_index) if handle_type != _DMA_BUF else None
        if not form or capacity is None:
            return capacity or 0, b""
        try:
            head = _read_at(fd, form.head.size, 0) if form.head.size else b""
            tail = _read_at(fd, form.tail.size, capacity - form.tail.size) if form.tail.size else b""
        except OSError as error:
            raise self._refusal(f"the fd cannot be read ({error.strerror})") from None
        problem = form.problem(head, tail, capacity, size)
        if problem:
            raise self._refusal(f"the fd is {problem}")
        return capacity, head

    def prove(
        self, fd: int, size: int, memory_type_index: int, handle_type: int, dedicated: NativeResource | None
    ) -> None:
        """The second gate. The fd stays the caller's.

        Errors: DriverError with VK_ERROR_INVALID_EXTERNAL_HANDLE where the fd is refused; what says nothing of the fd
        (OutOfMemoryError, DriverError with VK_ERROR_DEVICE_LOST) as it is.
        """
        self.measure(fd, size, handle_type, memory_type_index)
        refused = self._refused(fd, size, memory_type_index, handle_type, dedicated)
        if refused is None:
            return
        if refused.result in _NO_FAULT:
            raise refused
        if refused.result == vk.Result.ERROR_OUT_OF_DEVICE_MEMORY:
            self._check_room(memory_type_index)
        raise self._refusal(
            f"the fd was tried on a device of its own and refused there ({refused}): it is no payload of "
            f"{self._backend.name}, or of another size or memory type than {size} bytes of type {memory_type_index}"
        ) from refused

    def _refused(
        self, fd: int, size: int, memory_type_index: int, handle_type: int, dedicated: NativeResource | None
    ) -> DriverError | None:
        """What a driver of its own says to the import; None where it takes it. That device is destroyed then."""
        witness = self._backend.another()
        try:
            resource = witness.recreate(dedicated) if dedicated is not None else None
            try:
                witness.import_unexamined(fd, size, memory_type_index, handle_type, resource).close()
            except DriverError as error:
                return error
            finally:
                if resource is not None:
                    witness.destroy(resource)
        finally:
            witness.close()
        return None

    def _check_room(self, memory_type_index: int) -> None:
        """Errors: OutOfMemoryError where the device has no memory of this type for anybody, and the fd is not to blame.

        Drivers call a bad fd a lack of memory, too.
        """
        witness = self._backend.another()
        try:
            witness.allocate(_PROBE, memory_type_index, b"").close()
        finally:
            witness.close()

    def _too_short(self, has: int, size: int) -> DriverError:
        # It may be a copy that is measured: its number would tell the caller nothing.
        return self._refusal(f"the fd is a file of {has} bytes, and {size} are to be imported from it")

    def _refusal(self, problem: str) -> DriverError:
        return DriverError(
            f"vkAllocateMemory: {problem}; pass the fd that vkGetMemoryFdKHR gave, with the exporter's size and "
            "type; a payload whose file somebody has changed has to be allocated anew by its exporter",
            result=int(vk.Result.ERROR_INVALID_EXTERNAL_HANDLE),
            command="vkAllocateMemory",
            devices=[self._backend.name],
        )
