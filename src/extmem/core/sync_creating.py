"""vkCreateSemaphore, vkCreateFence, and timelines of the high-level API: rules, the device, the object manager.

An error undoes the steps before it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from extmem import rules, vk
from extmem.arguments import check_flag, whole_number
from extmem.core import arguments, everyday_names, sync_publishing
from extmem.core.sync_arguments import check_struct
from extmem.core.sync_facts import sync_backend, sync_facts
from extmem.core.sync_record import FenceRecord, HeldSync, SemaphoreRecord, SharedPayload
from extmem.devices.sync import FenceSpec, SemaphoreSpec
from extmem.errors import UnsupportedError
from extmem.manager import ShareTerms, manager
from extmem.objects import Share
from extmem.sharing.kinds import ObjectKind
from extmem.vk.handle_types import (
    NO_FENCE_TYPES,
    NO_SEMAPHORE_TYPES,
    SEMAPHORE_OPAQUE_FD,
    SEMAPHORE_OPAQUE_WIN32,
    FenceHandleType,
    SemaphoreHandleType,
)
from extmem.vk.struct_copies import copy_struct

if TYPE_CHECKING:
    from collections.abc import Mapping

    from extmem.core.device_state import DeviceState

__all__ = ["create_fence", "create_semaphore", "create_timeline", "fence_record", "semaphore_record"]

_U64 = 0xFFFF_FFFF_FFFF_FFFF
_EXPORTABLE = int(vk.ExternalSemaphoreFeatureFlagBits.EXPORTABLE)
_SIGNALED = int(vk.FenceCreateFlagBits.SIGNALED)
_MODIFY = 0x2 | 0x1000_0000 | 0x4000_0000
"""Rights that include signaling: 0x2, GENERIC_ALL, GENERIC_WRITE."""


def create_semaphore(device: DeviceState, given: vk.SemaphoreCreateInfo) -> HeldSync:
    """`Device.create_semaphore`."""
    info = copy_struct(given)
    with device.use():
        facts = sync_facts(device)
        check_struct(device, info, vk.SemaphoreCreateInfo, "vkCreateSemaphore", rules.check_create_semaphore, facts)
        device.report(rules.check_create_semaphore(info, facts), "vkCreateSemaphore")
        kind = vk.find(info, vk.SemaphoreTypeCreateInfo)
        export = vk.find(info, vk.ExportSemaphoreCreateInfo)
        types = SemaphoreHandleType(int(export.handle_types)) if export is not None else NO_SEMAPHORE_TYPES
        timeline = kind is not None and kind.semaphore_type == vk.SemaphoreType.TIMELINE
        terms = sync_publishing.terms_of(
            ObjectKind.SEMAPHORE, types, vk.find(info, vk.ExportSemaphoreWin32HandleInfoKHR)
        )
        value = int(kind.initial_value) if timeline and kind is not None else 0
        return _make_semaphore(device, timeline, value, types, terms, flags=int(info.flags))


def create_timeline(
    device: DeviceState,
    initial: int = 0,
    *,
    name: str | None = None,
    access: int | None = None,
    security: str | None = None,
    inherit: bool = False,
    handle_types: int | None = None,
) -> HeldSync:
    """`Device.timeline`."""
    check_flag(inherit, "inherit")
    name = everyday_names.everyday_name(name)
    value = whole_number(initial, "initial")
    if not 0 <= value <= _U64:
        raise ValueError(f"initial is {value}, and a timeline has 64 bits; give a value from 0 to {_U64}")
    if access is not None:
        access = arguments.access_of(access)
    arguments.check_share(name, access)
    with device.use():
        facts = sync_facts(device)
        types = _everyday_types(device, facts.timeline_types, name, handle_types)
        info = vk.SemaphoreCreateInfo(
            p_next=vk.SemaphoreTypeCreateInfo(
                vk.SemaphoreType.TIMELINE,
                value,
                p_next=vk.ExportSemaphoreCreateInfo(vk.ExternalSemaphoreHandleTypeFlagBits(types)) if types else None,
            )
        )
        device.report(rules.check_create_semaphore(info, facts), "vkCreateSemaphore")
        share = sync_publishing.share_for(ObjectKind.SEMAPHORE, types)
        terms, lazy, read_only = sync_publishing.plain_terms(share), False, False
        if share & Share.NT:
            mask = sync_publishing.everyday_access(access)
            read_only = mask is not None and not mask & _MODIFY
            if share == Share.NT and name is None and security is None and mask is None and not inherit:
                terms, lazy = None, True
            else:
                if security is None and read_only:
                    security = manager().reading_alone()
                terms = ShareTerms(
                    share, name, security, mask if mask is not None else sync_publishing.ALL_RIGHTS, inherit, True
                )
        held = _make_semaphore(device, True, value, types, terms, read_only=read_only)
        held.record.payload.lazy_share = lazy
        return held


def _everyday_types(
    device: DeviceState,
    capabilities: Mapping[int, rules.ExternalSyncFacts],
    name: str | None,
    handle_types: int | None,
) -> SemaphoreHandleType:
    """Return the handle types of a timeline: those that the caller states, or OPAQUE_WIN32 and OPAQUE_FD."""
    if handle_types is not None:
        bits = whole_number(handle_types, "handle_types", "give bits of vk.ExternalSemaphoreHandleTypeFlagBits")
        if not 0 <= bits < 1 << 31:
            raise ValueError(f"handle_types is {bits}, and flags have 31 bits; give bits of the enum")
        if (
            name is not None
            and not sync_publishing.share_for(ObjectKind.SEMAPHORE, SemaphoreHandleType(bits)) & Share.NT
        ):
            raise ValueError(
                f"handle_types is {bits:#x}, without OPAQUE_WIN32, so the timeline cannot have the name {name!r}; add "
                "OPAQUE_WIN32, or omit the name"
            )
        return SemaphoreHandleType(bits)
    types = NO_SEMAPHORE_TYPES
    for one in (SEMAPHORE_OPAQUE_WIN32, SEMAPHORE_OPAQUE_FD):
        answer = capabilities.get(one)
        if answer is not None and answer.features & _EXPORTABLE:
            types = SemaphoreHandleType(types | one)
    if name is not None and not types & SEMAPHORE_OPAQUE_WIN32:
        raise UnsupportedError(
            f"{device.name} exports no timelines as OPAQUE_WIN32, so the timeline cannot have the name {name!r}; omit "
            "the name, or create the timeline on the host device",
            requires_one_of=["a device that exports timelines as OPAQUE_WIN32", "the host device"],
        )
    return types


def _make_semaphore(
    device: DeviceState,
    timeline: bool,
    value: int,
    types: SemaphoreHandleType,
    terms: ShareTerms | None,
    *,
    flags: int = 0,
    read_only: bool = False,
) -> HeldSync:
    backend = sync_backend(device)
    descriptor = sync_publishing.describe(
        device,
        ObjectKind.SEMAPHORE,
        types,
        timeline=timeline,
        flags=flags,
        initial_value=value,
        host=device.kind == "host" or (timeline and backend.timelines == "host"),
        read_only=read_only,
    )
    native = backend.create_semaphore(SemaphoreSpec(timeline, value, types, terms, descriptor.encode()))
    record = semaphore_record(device, native, SharedPayload(descriptor), terms.name if terms is not None else None)
    return _published(record, terms)


def create_fence(device: DeviceState, given: vk.FenceCreateInfo) -> HeldSync:
    """`Device.create_fence`."""
    info = copy_struct(given)
    with device.use():
        facts = sync_facts(device)
        check_struct(device, info, vk.FenceCreateInfo, "vkCreateFence", rules.check_create_fence, facts)
        device.report(rules.check_create_fence(info, facts), "vkCreateFence")
        export = vk.find(info, vk.ExportFenceCreateInfo)
        types = FenceHandleType(int(export.handle_types)) if export is not None else NO_FENCE_TYPES
        terms = sync_publishing.terms_of(ObjectKind.FENCE, types, vk.find(info, vk.ExportFenceWin32HandleInfoKHR))
        flags = int(info.flags)
        backend = sync_backend(device)
        descriptor = sync_publishing.describe(
            device, ObjectKind.FENCE, types, flags=flags & ~_SIGNALED, host=backend.fences == "host"
        )
        spec = FenceSpec(bool(flags & _SIGNALED), types, terms, descriptor.encode())
        record = fence_record(device, backend.create_fence(spec), SharedPayload(descriptor), flags)
        return _published(record, terms)


def semaphore_record(
    device: DeviceState, native: Any, payload: SharedPayload, name: str | None = None
) -> SemaphoreRecord:
    """Return the record of a new semaphore of the device. After an error the native object is closed."""
    try:
        return SemaphoreRecord(device, native, payload, name)
    except BaseException:
        native.close()
        raise


def fence_record(device: DeviceState, native: Any, payload: SharedPayload, flags: int = 0) -> FenceRecord:
    """Return the record of a new fence of the device. After an error the native object is closed."""
    try:
        return FenceRecord(device, native, payload, flags)
    except BaseException:
        native.close()
        raise


def _published(record: SemaphoreRecord | FenceRecord, terms: ShareTerms | None) -> HeldSync:
    if terms is not None:
        try:
            sync_publishing.publish(record, record.permanent, terms)
        except BaseException:
            record.end()
            raise
    return HeldSync(record, record.hold())
