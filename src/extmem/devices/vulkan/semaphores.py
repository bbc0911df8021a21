"""`VulkanSemaphore`: a VkSemaphore, with the host word of a timeline that is shared.

How this works. The driver's timeline orders work on the GPU. Beside a timeline that is shared there is its *host word*,
a page that has the layout of a host timeline (`devices.host`), and contains the value that hosts have seen the timeline
reach. Whoever signals the timeline raises the word: the host after its signal, the device that submitted a signal as
soon as the submission is done (`sync_submission`), CUDA by its own means. Waits of the host are waits for the word:
it wakes them at once whoever signals, and it tells that a signaler has died. A driver may not notice at all that
another API signals its timeline, and polls.

A semaphore can also be a *host timeline* altogether: where the driver's timelines cannot be shared, or where a payload
was imported that a host made. Then `host` is that timeline, the VkSemaphore is not used, and the host does the waits
and signals of a queue.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from extmem import vk
from extmem.devices.sync import NativeSemaphore, SemaphoreSpec
from extmem.devices.vulkan.host_words import page_of
from extmem.devices.vulkan.sync_handle_types import SHARED_TYPES
from extmem.devices.vulkan.sync_sharing import SharedSync
from extmem.devices.vulkan.sync_words import ObjectKindNames
from extmem.errors import UnsupportedError
from extmem.owning import late_imports
from extmem.sharing.payload import Page
from extmem.vk.abi import ffi

if TYPE_CHECKING:
    from collections.abc import Sequence

    from extmem.devices.sync import SyncSource
    from extmem.devices.vulkan.host_words import HostWords
    from extmem.devices.vulkan.logical import LogicalDevice
    from extmem.devices.vulkan.sync_fd_check import SyncFdCheck
    from extmem.owning import Held, OwnedFd
    from extmem.vk.handle_types import SyncHandleType

__all__ = ["VulkanSemaphore"]

_S = vk.StructureType
_CREATE, _TYPE = int(_S.SEMAPHORE_CREATE_INFO), int(_S.SEMAPHORE_TYPE_CREATE_INFO)
_SIGNAL = int(_S.SEMAPHORE_SIGNAL_INFO)


class VulkanSemaphore(SharedSync):
    """A semaphore of the driver, or a host timeline. See `NativeSemaphore`."""

    kind = ObjectKindNames("Semaphore")

    def __init__(self, device: LogicalDevice, fds: SyncFdCheck, words: HostWords | None, spec: SemaphoreSpec) -> None:
        """words: makes and opens timelines of the host; None for a semaphore without a host word."""
        super().__init__(device, fds, int(spec.export_types), spec.terms)
        self.timeline = spec.timeline
        self._words = words
        self.host: NativeSemaphore | None = None
        """The host timeline that it is; None for a semaphore of the driver."""
        self.word: NativeSemaphore | None = None
        """The host word of a driver's timeline; None for one that is not shared."""
        if spec.timeline and self.export_types and words is not None and not words.driver_shares_timelines:
            self.host = words.new(spec)
            return
        if spec.timeline and "timelineSemaphore" not in device.features:
            raise UnsupportedError(
                f"{device.name} has no timeline semaphores: the feature timelineSemaphore is not enabled; use a binary "
                "semaphore, or a timeline that is exported, which the host provides",
                requires_one_of=["timelineSemaphore"],
            )
        chain = self._keep = self._export_info(ffi.NULL)
        if spec.timeline:
            chain = ffi.new("VkSemaphoreTypeCreateInfo *", (_TYPE, chain, 1, spec.initial_value))
        self._make(ffi.new("VkSemaphoreCreateInfo *", (_CREATE, chain, 0)))
        if spec.timeline and self.export_types & SHARED_TYPES and words is not None:
            try:
                self.word = words.new_word(spec)
            except BaseException:
                self.close()
                raise

    # What it is.

    @property
    def keeper(self) -> Held:
        """See `NativeSync`."""
        return self.host.keeper if self.host is not None else super().keeper

    @property
    def fd(self) -> int | None:
        """See `NativeSync`."""
        return self.host.fd if self.host is not None else super().fd

    @property
    def raw(self) -> int:
        """See `NativeSync`. 0 for a host timeline."""
        return 0 if self.host is not None else super().raw

    @property
    def pages(self) -> Sequence[Any]:
        """See `NativeSync`."""
        if self.host is not None:
            return self.host.pages
        handle = self.word.fd if self.word is not None else None
        return () if handle is None else (Page(handle, True, by_rights=True),)

    @property
    def stated_identity(self) -> int:
        """See `NativeSync`."""
        return self.host.stated_identity if self.host is not None else super().stated_identity

    # Import and export.

    def import_payload(self, source: SyncSource) -> None:
        """See `NativeSync`. A payload that a host made turns it into a host timeline; a driver's turns it back."""
        self.device.check_open()
        host = self._words.opened_payload(source) if self.timeline and self._words is not None else None
        if host is not None:
            replaced, self.host = self.host, host
            self.writable = source.writable
        else:
            replaced, self.host = self.host, None
            try:
                if self._object is None:
                    chain = ffi.new("VkSemaphoreTypeCreateInfo *", (_TYPE, ffi.NULL, 1, 0))
                    self._make(ffi.new("VkSemaphoreCreateInfo *", (_CREATE, chain, 0)))
                super().import_payload(source)
            except BaseException:
                self.host = replaced
                raise
            self._replace_word(source)
        if replaced is not None:
            replaced.close()

    def _replace_word(self, source: SyncSource) -> None:
        """Use the word of the payload that was imported; none if it has none."""
        if self.timeline and self._words is not None:
            pages = source.payload.pages if source.payload is not None else ()
            opened = self._words.opened_page(pages[0]) if pages else None
            replaced, self.word = self.word, opened
            if replaced is not None:
                replaced.close()

    def export_fd(self, handle_type: SyncHandleType) -> OwnedFd | None:
        """See `NativeSync`."""
        return self.host.export_fd(handle_type) if self.host is not None else super().export_fd(handle_type)

    # Timelines.

    def counter(self) -> int:
        """See `NativeSemaphore`."""
        if self.host is not None:
            return self.host.counter()
        device, value = self.device, ffi.new("uint64_t *")
        with self.keeper.use():
            result = device.timeline_commands[0](device.handle, self.live, value)
        device.check(result, "vkGetSemaphoreCounterValue")
        return int(value[0])

    @property
    def host_word(self) -> NativeSemaphore | None:
        """The timeline of the host that host waits are for; None for a driver's timeline that is not shared."""
        return self.host if self.host is not None else self.word

    def has_reached(self, value: int) -> bool:
        """Whether the value is reached. The driver is asked if the host word is lower."""
        word = self.host_word
        if word is not None and word.counter() >= value:
            return True
        return self.host is None and self.counter() >= value

    def signal(self, value: int) -> None:
        """See `NativeSemaphore`. The driver's value is raised before the word, which wakes the waiters."""
        self.check_writable()
        if self.host is not None:
            self.host.signal(value)
            return
        device = self.device
        with self.keeper.use():
            info = ffi.new("VkSemaphoreSignalInfo *", (_SIGNAL, ffi.NULL, self.live, value))
            device.check(device.timeline_commands[2](device.handle, info), "vkSignalSemaphore", f"the value {value}")
        self.raise_word(value)

    def raise_word(self, value: int) -> None:
        """Tell the hosts that wait that the timeline has reached this value."""
        if self.word is not None:
            page_of(self.word).raise_to(value)

    def check_writable(self) -> None:
        """Raise AccessDeniedError without the right to signal, which a driver does not enforce."""
        if not self.writable:
            with late_imports():
                from extmem.objects import Status, error_for

            raise error_for(
                Status.ACCESS_DENIED,
                "a signal is refused: the semaphore was opened or imported without the right to signal (0x2); open it "
                "with Access.READ_WRITE, which its owner must grant",
            )

    def close(self) -> None:
        """See `NativeSync`. Safe to repeat, also after an exception."""
        super().close()
        for one in (self.host, self.word):
            if one is not None:
                one.close()
