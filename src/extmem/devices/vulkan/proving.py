"""No unproven fd reaches a device in use.

How this works. Drivers believe what they are given. One of them answers an import of a bad fd with
VK_ERROR_OUT_OF_DEVICE_MEMORY and refuses every allocation of the process from then on, until that VkDevice is
destroyed; another takes too small a file. So a stranger's fd goes through two gates:

1. *Likeness*: what the fd is (kind of file, device number, what its link in /proc says) must be what this driver's
   own exports are. A tiny allocation of ours is exported once per device and kind, and looked at.
2. *Proof*: it is imported, with the size, memory type and dedicated resource of the real import, on a VkDevice made
   for nothing else, which is destroyed before the real import.

What the object manager hands out was exported through this library, and is known by its object; so is what an
`FdHandle` of this library's own export owns, in this process or another of the same user's. For these a look at the
kind of file and its length suffices: it would tell a number that was closed behind the handle's back and is another
file's by now.
"""

from __future__ import annotations

import os
import re
import stat
from typing import TYPE_CHECKING, NamedTuple

from extmem import vk
from extmem.devices.base import FdFacts
from extmem.devices.vulkan.capabilities import supported
from extmem.errors import DriverError, ExtmemError

if TYPE_CHECKING:
    from extmem.devices.base import NativeResource
    from extmem.devices.vulkan.driver import VulkanDriver
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


class Likeness(NamedTuple):
    """What an fd looks like from outside: file type, device number of a device file, and its link without numbers."""

    mode: int
    rdev: int
    link: str

    def __str__(self) -> str:
        return self.link


def likeness(fd: int) -> Likeness:
    """Look at an fd. OSError (EBADF) if it is not open."""
    found = os.fstat(fd)
    try:
        link = os.readlink(f"/proc/self/fd/{fd}")
    except OSError:
        link = _WORDS.get(stat.S_IFMT(found.st_mode), "anonymous")
    return Likeness(stat.S_IFMT(found.st_mode), _number(found), re.sub(r"\d+", "#", link.removesuffix(" (deleted)")))


def _number(found: os.stat_result) -> int:
    return int(getattr(found, "st_rdev", 0))  # not on every platform


class Prover:
    """The gates of one device."""

    def __init__(self, driver: VulkanDriver) -> None:
        self._driver = driver
        self._own: dict[int, Likeness] = {}

    def own(self, handle_type: int) -> Likeness:
        """What this driver's exports of that type (a driver's own) look like.

        Errors: UnsupportedError for a type that it does not export, which it is not asked to; as `Driver.allocate`.
        """
        known = self._own.get(handle_type)
        if known is None:
            if not self._gives_fds(handle_type):
                raise self._driver.unsupported_type(handle_type)
            fd = self.probe(handle_type)
            try:
                known = self._own[handle_type] = likeness(fd.fd)
            finally:
                fd.close()
        return known

    def _gives_fds(self, handle_type: int) -> bool:
        """Whether the device exports fds as that type. One that is asked to where it does not may crash."""
        return handle_type in _FDS and supported(self._driver.physical, handle_type)

    def probe(self, handle_type: int) -> OwnedFd:
        """An fd as this driver exports them, of memory that is freed again."""
        external = vk.ExternalMemoryBufferCreateInfo(HandleType(handle_type))
        with self._driver.temporary(vk.BufferCreateInfo(size=_PROBE, usage=_COPYING, p_next=external)) as buffer:
            needs = buffer.requirements
            index = (needs.memory_type_bits & -needs.memory_type_bits).bit_length() - 1
            probe = self._driver.allocate(needs.size, index, b"", handle_types=handle_type, dedicated=buffer)
            try:
                return self._driver.get_fd(probe.live, handle_type)
            finally:
                probe.close()

    def inspect(self, fd: int, handle_type: int) -> FdFacts:
        """The first gate. Never raises for what it finds."""
        try:
            found = os.fstat(fd) if fd >= 0 else None
        except OSError:
            found = None
        if found is None:
            return FdFacts("closed", f"fd {fd} is no open file descriptor", self_describing=False)
        kind = _WORDS.get(stat.S_IFMT(found.st_mode), "other")
        if not self._gives_fds(handle_type):
            return FdFacts(kind, str(self._driver.unsupported_type(handle_type)), self_describing=False)
        try:
            seen, own = likeness(fd), self.own(handle_type)
        except ExtmemError as error:
            return FdFacts(kind, f"what {self._driver.name} exports cannot be told: {error}", self_describing=False)
        if seen != own:
            return FdFacts(
                kind,
                f"fd {fd} is {seen}, and what {self._driver.name} exports as {HandleType(handle_type).name} is {own}; "
                "pass the fd that vkGetMemoryFdKHR gave, or a copy of it",
                self_describing=False,
            )
        capacity = found.st_size if stat.S_ISREG(found.st_mode) else 0
        return FdFacts(
            kind,
            size=found.st_size,
            capacity=capacity,
            writable=True,
            identity=(found.st_dev, found.st_ino),
            self_describing=False,
        )

    def glance(self, fd: int, handle_type: int) -> FdFacts:
        """The first gate for what this library exported itself: a full inspection only where the file looks wrong."""
        try:
            if self.resembles(fd, handle_type):
                return _ALIKE
        except OSError:
            pass  # the inspection says why
        except ExtmemError as error:
            return FdFacts("other", f"what {self._driver.name} exports cannot be told: {error}", self_describing=False)
        return self.inspect(fd, handle_type)

    def resembles(self, fd: int, handle_type: int) -> bool:
        """The first gate without the link, for what this library or the object manager hands out."""
        found, own = os.fstat(fd), self.own(handle_type)
        return stat.S_IFMT(found.st_mode) == own.mode and _number(found) == own.rdev

    def recognise(self, fd: int, size: int, handle_type: int) -> None:
        """`resembles` and `measure`, with one look. Errors: DriverError."""
        try:
            found = os.fstat(fd)
        except OSError:
            raise self._refusal(f"fd {fd} is no open file descriptor") from None
        own = self._own.get(handle_type) or self.own(handle_type)
        mode = found.st_mode & _FILE_TYPE
        if mode != own.mode or (mode != stat.S_IFREG and _number(found) != own.rdev):
            raise self._refusal(f"fd {fd} is no file as {self._driver.name} exports them")
        if found.st_size < size and (found.st_size or mode == stat.S_IFREG):
            raise self._too_short(found.st_size, size)

    def measure(self, fd: int, size: int) -> None:
        """Refuse a file that is shorter than the import: drivers map it, and whoever touches its end is killed.

        What is no regular file says its size, or 0 where it does not tell.
        """
        found = os.fstat(fd)
        if found.st_size < size and (found.st_size or stat.S_ISREG(found.st_mode)):
            raise self._too_short(found.st_size, size)

    def prove(
        self, fd: int, size: int, memory_type_index: int, handle_type: int, dedicated: NativeResource | None
    ) -> None:
        """The second gate. The fd stays the caller's. Errors: DriverError with VK_ERROR_INVALID_EXTERNAL_HANDLE."""
        self.measure(fd, size)
        witness = self._driver.another()
        try:
            resource = witness.recreate(dedicated) if dedicated is not None else None
            try:
                witness.import_unexamined(fd, size, memory_type_index, handle_type, resource).close()
            except ExtmemError as error:
                raise self._refusal(
                    f"the fd was tried on a device of its own and refused there ({error}): it is no payload of "
                    f"{self._driver.name}, or of another size or memory type than {size} bytes of type "
                    f"{memory_type_index}"
                ) from error
            finally:
                if resource is not None:
                    witness.destroy(resource)
        finally:
            witness.close()

    def _too_short(self, has: int, size: int) -> DriverError:
        # It may be a copy that is measured: its number would tell the caller nothing.
        return self._refusal(f"the fd is a file of {has} bytes, and {size} are to be imported from it")

    def _refusal(self, problem: str) -> DriverError:
        return DriverError(
            f"vkAllocateMemory: {problem}; pass the fd that vkGetMemoryFdKHR gave, with the exporter's size and type",
            result=int(vk.Result.ERROR_INVALID_EXTERNAL_HANDLE),
            command="vkAllocateMemory",
            devices=[self._driver.name],
        )
