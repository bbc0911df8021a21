"""What a scenario of semaphores and fences works with: a device or two, one handle type, one kind of object.

How this works. A scenario is a function of a `SyncCase`, as those of memory are of a `Case`. It makes objects, signals
them and waits for them by the commands of the specification: a binary semaphore by submissions of a queue, a timeline
by values, a fence by a submission with it. A wait that is not satisfied within `PATIENCE_NS` fails the scenario.
Everything that was made is released at the end.
"""

from __future__ import annotations

import contextlib
import os
from dataclasses import dataclass
from enum import Enum
from types import TracebackType
from typing import Self

import extmem
from extmem import vk
from extmem.api import Device
from extmem.handles import FdHandle, KmtHandle, NtHandle
from extmem.testing.conformance._case import Family, MakeDevice, NotSupportedError, expect

__all__ = ["Payload", "SyncCase", "SyncObject", "SyncVariant"]

SyncObject = extmem.Semaphore | extmem.Fence
_SemaphoreType = vk.ExternalSemaphoreHandleTypeFlagBits
_FenceType = vk.ExternalFenceHandleTypeFlagBits
_NEEDED = 3
"""EXPORTABLE and IMPORTABLE, which have the same bits for both."""
PATIENCE_NS = 20_000_000_000
"""Nanoseconds after which a wait has failed."""
_ALL_STAGES = vk.PipelineStageFlagBits.ALL_COMMANDS
_TYPES = {
    "fd": (_SemaphoreType.OPAQUE_FD, _FenceType.OPAQUE_FD),
    "sync_fd": (_SemaphoreType.SYNC_FD, _FenceType.SYNC_FD),
    "win32": (_SemaphoreType.OPAQUE_WIN32, _FenceType.OPAQUE_WIN32),
    "win32_kmt": (_SemaphoreType.OPAQUE_WIN32_KMT, _FenceType.OPAQUE_WIN32_KMT),
}


class Payload(Enum):
    """What the objects of a scenario are."""

    BINARY = "binary"
    TIMELINE = "timeline"
    FENCE = "fence"


@dataclass(frozen=True, slots=True)
class SyncVariant:
    """A handle type, the kind of payload, and whether imports are temporary: what a scenario is run with."""

    handles: str
    """"fd", "sync_fd", "win32" or "win32_kmt"."""
    payload: Payload
    temporary: bool
    two_devices: bool = False
    """Export from one `Device` and import to another of the same physical device."""

    def __str__(self) -> str:
        parts = [self.handles, self.payload.value, "temporary" if self.temporary else "permanent"]
        return "-".join([*parts, "two_devices"] if self.two_devices else parts)

    @property
    def family(self) -> Family:
        """The handle family, by which tests are marked for a system."""
        return Family.FD if self.handles in ("fd", "sync_fd") else Family(self.handles)


class SyncCase:
    """One run of one scenario. It is a context manager, which at its end releases everything that it made."""

    def __init__(
        self,
        make_device: MakeDevice,
        variant: SyncVariant,
        *,
        repeats: int = 4096,
        remote: str = "extmem.open_device()",
    ) -> None:
        self.variant = variant
        self.fence = variant.payload is Payload.FENCE
        self.timeline = variant.payload is Payload.TIMELINE
        self.copies = variant.handles == "sync_fd"
        """Whether an import takes a copy of the state, and an export acts on the object."""
        semaphore_type, fence_type = _TYPES[variant.handles]
        self.handle_type: int = int(fence_type if self.fence else semaphore_type)
        self.repeats = repeats
        """How often the `…_multiple_times` scenarios repeat; in the Vulkan conformance tests 4096 times."""
        self.remote = remote
        """A Python expression that opens the device in another process, where `extmem` is imported."""
        self._make_device = make_device
        self._stack = contextlib.ExitStack()
        self._value = 0

    def __enter__(self) -> Self:
        with contextlib.ExitStack() as stack:
            self.exporter = stack.enter_context(self._make_device())
            self.importer = stack.enter_context(self._make_device()) if self.variant.two_devices else self.exporter
            self._stack = stack.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.__exit__(kind, error, trace)

    def require_support(self) -> None:
        """Raise NotSupportedError unless such objects can be exported and imported."""
        device, features = self.exporter, 0
        if self.fence:
            fence = device.get_physical_device_external_fence_properties(
                vk.PhysicalDeviceExternalFenceInfo(_FenceType(self.handle_type))
            )
            features = int(fence.external_fence_features)
        else:
            semaphore = device.get_physical_device_external_semaphore_properties(
                vk.PhysicalDeviceExternalSemaphoreInfo(_SemaphoreType(self.handle_type), p_next=self._type_info())
            )
            features = int(semaphore.external_semaphore_features)
        if features & _NEEDED != _NEEDED:
            raise NotSupportedError(
                f"{device.name} does not export and import a {self.variant.payload.value} as {self.variant.handles}"
            )

    # Objects.

    def make(self, device: Device, *, name: str | None = None) -> SyncObject:
        """Create an exportable object, unsignaled or with the value 0."""
        if self.fence:
            win32 = vk.ExportFenceWin32HandleInfoKHR(None, 0x1F0003, name) if name is not None else None
            exported = vk.ExportFenceCreateInfo(_FenceType(self.handle_type), win32)
            return self._stack.enter_context(device.create_fence(vk.FenceCreateInfo(p_next=exported)))
        named = vk.ExportSemaphoreWin32HandleInfoKHR(None, 0x1F0003, name) if name is not None else None
        types = vk.ExportSemaphoreCreateInfo(_SemaphoreType(self.handle_type), named)
        return self._stack.enter_context(device.create_semaphore(vk.SemaphoreCreateInfo(p_next=self._type_info(types))))

    def target(self, device: Device) -> SyncObject:
        """Create an object to import into, which is not exportable itself."""
        if self.fence:
            return self._stack.enter_context(device.create_fence(vk.FenceCreateInfo()))
        return self._stack.enter_context(device.create_semaphore(vk.SemaphoreCreateInfo(p_next=self._type_info())))

    def handle(self, thing: SyncObject) -> FdHandle | NtHandle | KmtHandle | int:
        """Export by the command of the specification; -1 is SYNC_FD's "signaled already"."""
        device = thing.device
        made: FdHandle | NtHandle | KmtHandle | int
        if isinstance(thing, extmem.Fence):
            fence_type = _FenceType(self.handle_type)
            if self.variant.family is Family.FD:
                made = device.get_fence_fd(vk.FenceGetFdInfoKHR(thing, fence_type))
            else:
                made = device.get_fence_win32_handle(vk.FenceGetWin32HandleInfoKHR(thing, fence_type))
        else:
            semaphore_type = _SemaphoreType(self.handle_type)
            if self.variant.family is Family.FD:
                made = device.get_semaphore_fd(vk.SemaphoreGetFdInfoKHR(thing, semaphore_type))
            else:
                made = device.get_semaphore_win32_handle(vk.SemaphoreGetWin32HandleInfoKHR(thing, semaphore_type))
        return made if isinstance(made, int) else self.kept(made)

    def another_handle(self, thing: SyncObject) -> FdHandle | NtHandle | KmtHandle | int:
        """Return one more handle of an object that was exported already."""
        if self.variant.family is Family.FD:
            return self.handle(thing)
        if isinstance(thing, extmem.Fence):
            made = thing.export_handle(_FenceType(self.handle_type))
        else:
            made = thing.export_handle(_SemaphoreType(self.handle_type))
        return made if isinstance(made, int) else self.kept(made)

    def kept(self, handle: FdHandle | NtHandle | KmtHandle) -> FdHandle | NtHandle | KmtHandle:
        """Close this handle at the end of the case."""
        self._stack.callback(handle.close)
        return handle

    def keep(self, *closing: contextlib.AbstractContextManager[object]) -> None:
        """Close these at the end of the case, too."""
        for manager in closing:
            self._stack.enter_context(manager)

    def import_into(
        self,
        thing: SyncObject,
        handle: FdHandle | NtHandle | KmtHandle | int | None,
        *,
        name: str | None = None,
        temporary: bool | None = None,
    ) -> None:
        """Import from a handle or name, temporarily as the variant has it. An fd is consumed, nothing else."""
        device = thing.device
        flags = int(self.variant.temporary if temporary is None else temporary)
        if isinstance(thing, extmem.Fence):
            fence_type = _FenceType(self.handle_type)
            if self.variant.family is Family.FD:
                device.import_fence_fd(vk.ImportFenceFdInfoKHR(thing, flags, fence_type, _fd(handle)))
            else:
                device.import_fence_win32_handle(
                    vk.ImportFenceWin32HandleInfoKHR(thing, flags, fence_type, handle, name)
                )
        else:
            semaphore_type = _SemaphoreType(self.handle_type)
            if self.variant.family is Family.FD:
                device.import_semaphore_fd(vk.ImportSemaphoreFdInfoKHR(thing, flags, semaphore_type, _fd(handle)))
            else:
                device.import_semaphore_win32_handle(
                    vk.ImportSemaphoreWin32HandleInfoKHR(thing, flags, semaphore_type, handle, name)
                )
        if isinstance(handle, FdHandle):
            expect(handle.closed, f"a successful import must consume the fd, and {handle!r} is still open")
        elif isinstance(handle, NtHandle):
            expect(not handle.closed, f"an import must not take an NT handle over, and {handle!r} is closed")

    def imported(self, handle: FdHandle | NtHandle | KmtHandle | int) -> SyncObject:
        """Return a new object of the importer with the payload of this handle."""
        thing = self.target(self.importer)
        self.import_into(thing, handle)
        return thing

    # Signals and waits.

    def signal(self, thing: SyncObject) -> None:
        """Signal it by a submission. A timeline gets its next value."""
        device = thing.device
        if isinstance(thing, extmem.Fence):
            device.queue_submit([], thing)
        elif self.timeline:
            self._value += 1
            values = vk.TimelineSemaphoreSubmitInfo((), (self._value,))
            device.queue_submit([vk.SubmitInfo(signal_semaphores=(thing,), p_next=values)])
        else:
            device.queue_submit([vk.SubmitInfo(signal_semaphores=(thing,))])

    def wait(self, thing: SyncObject) -> None:
        """Wait for the last signal; a binary semaphore and a queue consume it."""
        device = thing.device
        if isinstance(thing, extmem.Fence):
            expect(device.wait_for_fences([thing], timeout_ns=PATIENCE_NS), f"{thing!r} is not signaled")
            return
        values = None
        if self.timeline:
            # A host device waits in the submission, without a limit, so the wait with a limit comes first.
            waited = vk.SemaphoreWaitInfo(semaphores=(thing,), values=(self._value,))
            expect(device.wait_semaphores(waited, PATIENCE_NS), f"{thing!r} has not the value {self._value}")
            values = vk.TimelineSemaphoreSubmitInfo((self._value,), ())
        with device.create_fence(vk.FenceCreateInfo()) as done:
            submit = vk.SubmitInfo(wait_semaphores=(thing,), wait_dst_stage_mask=(_ALL_STAGES,), p_next=values)
            device.queue_submit([submit], done)
            expect(device.wait_for_fences([done], timeout_ns=PATIENCE_NS), f"{thing!r} is not signaled")

    def signaled(self, fence: SyncObject) -> bool:
        """Whether a fence is signaled."""
        expect(isinstance(fence, extmem.Fence), f"{fence!r} is not a fence")
        return isinstance(fence, extmem.Fence) and bool(fence.device.get_fence_status(fence))

    def reset(self, fence: SyncObject) -> None:
        """Reset a fence, which ends a temporary import first."""
        if isinstance(fence, extmem.Fence):
            fence.device.reset_fences([fence])

    def name(self) -> str:
        """Return a name that no other process uses."""
        return f"extmem conformance {self.variant} {os.getpid()}"

    def _type_info(self, more: vk.ChainStruct | None = None) -> vk.ChainStruct | None:
        if not self.timeline:
            return more
        return vk.SemaphoreTypeCreateInfo(vk.SemaphoreType.TIMELINE, 0, more)


def _fd(handle: FdHandle | NtHandle | KmtHandle | int | None) -> FdHandle | int:
    if isinstance(handle, (FdHandle, int)):
        return handle
    raise TypeError(f"{handle!r} is not an fd")
