"""vkAllocateMemory: rules first, then the device, then the object manager; whatever fails undoes what came before."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from extmem import rules, vk
from extmem.core import (
    cross_api,
    describing,
    exporting,
    image_queries,
    import_source,
    rule_facts,
    validation_cache,
)
from extmem.core.caller_fd import CallersFd
from extmem.core.memory_record import HeldMemory, MemoryRecord
from extmem.core.resources import BufferObject, ImageObject, ResourceObject, keep_resource
from extmem.devices.types import ImportRequest
from extmem.errors import DriverError, InvalidHandleError, RuleViolation
from extmem.objects import Status
from extmem.owning import Uses
from extmem.rules import Refusal
from extmem.sharing.descriptor import Descriptor
from extmem.vk.handle_types import HOST_TYPES, NO_TYPES, SIZED_BY_D3D, MemoryHandleType, union
from extmem.vk.struct_copies import copy_struct
from extmem.vk.value_text import bits_of

if TYPE_CHECKING:
    from extmem.core.device_state import DeviceState
    from extmem.core.import_source import Source
    from extmem.devices.backend import Allocation
    from extmem.manager import Imported, Manager
    from extmem.sharing.terms import ShareTerms

__all__ = [
    "ArrayTerms",
    "adopt",
    "adopt_object",
    "allocate_in",
    "allocate_memory",
    "check_fields",
    "dedicated_resource",
    "check_allocation",
]

_U32 = 0xFFFF_FFFF


@dataclass(frozen=True, slots=True)
class ArrayTerms:
    """What the high-level API adds to a VkMemoryAllocateInfo: the descriptor's array, and shares made on demand."""

    descriptor: Descriptor | None = None
    lazy_share: bool = False


def allocate_memory(
    device: DeviceState,
    info: vk.MemoryAllocateInfo,
    array_terms: ArrayTerms | None = None,
    stated: Descriptor | None = None,
    resource: ResourceObject | None = None,
) -> HeldMemory:
    """Allocate or import as `info` says. Errors: see `Device.allocate_memory`.

    resource: the memory is dedicated to it, and destroys it at its end.
    """
    info = copy_struct(info)
    with Uses(device) as uses:
        memory, callers = allocate_in(uses, device, info, array_terms, stated, resource)
    if callers is None:
        return memory
    if callers.handle is None:
        try:
            callers.arm()
        except BaseException:
            callers.disarm()
            raise
    callers.consume()
    return memory


def allocate_in(
    uses: Uses,
    device: DeviceState,
    info: vk.MemoryAllocateInfo,
    array_terms: ArrayTerms | None = None,
    stated: Descriptor | None = None,
    resource: ResourceObject | None = None,
) -> tuple[HeldMemory, CallersFd | None]:
    """Return the memory, and the fd that it was imported from, which is not consumed yet.

    uses: hold the device. info: no other code changes it.
    """
    key = validation_cache.of_allocation(info) if stated is None else None
    # Fields are of their types in calls to which no rule is applied, too: that check is remembered by itself.
    fields = ("fields", *key) if key is not None else None
    if fields not in device.validated:
        check_fields(device, info)
        device.validated.note(fields)
    dedicated = export = chained = source = None
    for link in list(vk.chain(info)):
        if isinstance(link, vk.ExportMemoryAllocateInfo):
            export = export or link
        elif isinstance(link, vk.ExportMemoryWin32HandleInfoKHR):
            chained = chained or link
        elif isinstance(link, vk.MemoryDedicatedAllocateInfo):
            dedicated = dedicated or dedicated_resource(link)
        elif source is None:
            source = import_source.resolve(device.backend, link, uses, stated)
    try:
        export_types = MemoryHandleType(int(export.handle_types)) if export is not None else NO_TYPES
        if device.check != "off" or (source is not None and source.error is not None):
            if source is not None:
                key = validation_cache.of_import(key, source.described_by) if source.error is None else None
            if key not in device.validated or not device.has_room:
                check_allocation(device, info, dedicated, source, export_types)
                if device.check == "raise":  # it has not raised
                    device.validated.note(key)
        if export_types:
            exporting.refuse_direct3d_types(device, export_types)
        size, kind = int(info.allocation_size), int(info.memory_type_index)
        terms = exporting.terms_of(export_types, chained) if export_types else None
        if source is not None:
            if dedicated is not None:
                uses.add(dedicated)
            try:
                record = adopt(device, source, size, kind, dedicated, export_types, terms)
            except InvalidHandleError as error:  # the driver alone could tell
                source.refusal = Refusal(Status.INVALID_PARAMETER.name, str(error))
                if device.check != "off":
                    facts = _facts(device, info, dedicated, source, export_types)
                    error.violations = tuple(rules.check_allocate_memory(info, facts))
                raise
        else:
            described = array_terms.descriptor if array_terms is not None else None
            descriptor = described or describing.describe_allocation(device, size, kind, export_types, dedicated)
            native = uses.add(dedicated).native if dedicated is not None else None
            given = None if array_terms is not None and array_terms.lazy_share else terms
            if given is not None and array_terms is not None:
                given = given._replace(described=True)
            allocation = device.backend.allocate(
                size, kind, descriptor.encode(), handle_types=export_types, dedicated=native, terms=given
            )
            record = MemoryRecord(device, allocation, descriptor, size, kind)
            if dedicated is not None:
                record.dedicated = dedicated.facts
    except BaseException:
        if source is not None:
            source.abandon()
        raise
    if export_types:
        record.export_handle_types = export_types
        if array_terms is not None and array_terms.lazy_share:
            record.lazy_share = terms is not None
        elif terms is not None:
            try:
                exporting.publish(record, terms)
            except BaseException:
                record.end()
                raise
    memory = HeldMemory(record, record.hold())
    if resource is not None:
        keep_resource(record, resource)
    return memory, source.callers if source is not None and source.fd_is_valid else None


def adopt(
    device: DeviceState,
    source: Source,
    size: int,
    kind: int,
    dedicated: ResourceObject | None,
    export_types: MemoryHandleType = NO_TYPES,
    terms: ShareTerms | None = None,
) -> MemoryRecord:
    """The device's import of what `resolve` found; the record owns its references from then on.

    export_types, terms: how the import is exported again, for a driver that does both in one call.
    """
    unknown = source.descriptor is None
    if unknown and dedicated is not None and device.described is None and source.handle_type in SIZED_BY_D3D:
        size = dedicated.requirements.size or size or 1  # drivers may say 0, and so may programs, or anything
    if unknown and size < 1:
        # No rule speaks of it where nobody knows the exporter's size, and there are drivers that call it a success.
        raise DriverError(
            f"vkAllocateMemory: {size} bytes are to be imported; pass the exporter's allocationSize",
            result=vk.Result.ERROR_INVALID_EXTERNAL_HANDLE,
            command="vkAllocateMemory",
            devices=[device.name],
        )
    descriptor = source.descriptor
    if descriptor is None and device.described is not None and source.imported is not None:
        descriptor = cross_api.stranger(device, source, size, kind)
    elif descriptor is None:
        descriptor = describing.describe_allocation(device, size, kind, source.handle_type, dedicated)
    if descriptor.allocation_size != size:
        # Reached only with the rules off or as warnings. Anything else would read or write past the payload.
        raise DriverError(
            f"vkAllocateMemory: allocationSize {size} differs from the payload's {descriptor.allocation_size}; "
            "pass the exporter's (it is in the descriptor)",
            result=vk.Result.ERROR_INVALID_EXTERNAL_HANDLE,
            command="vkAllocateMemory",
            devices=[device.name, descriptor.device_name],
        )
    if source.imported is not None and source.owner is not None:
        record = adopt_object(
            device, source.owner, source.imported, descriptor, kind, source.handle_type, dedicated, export_types, terms
        )
        source.imported = None
    else:
        native = dedicated.native if dedicated is not None else None
        if device.described is not None and source.fd_is_valid:
            allocation = cross_api.by_fd(device.described, source)
        else:
            allocation = source.allocation(device.backend, size, kind, native)
        record = MemoryRecord(device, allocation, descriptor, size, kind)
        record.import_handle_type = source.handle_type
        record.writable = source.writable
        record.identity = source.fd_payload.identity if source.fd_payload is not None else 0
    if dedicated is not None:
        record.dedicated = dedicated.facts
    return record


def adopt_object(
    device: DeviceState,
    owner: Manager,
    imported: Imported,
    descriptor: Descriptor,
    kind: int,
    handle_type: MemoryHandleType,
    dedicated: ResourceObject | None = None,
    export_types: MemoryHandleType = NO_TYPES,
    terms: ShareTerms | None = None,
    allocation: Allocation | None = None,
) -> MemoryRecord:
    """The device's import of what the object manager gave; the record owns that from then on.

    allocation: the import, where it was made already.
    """
    payload, size = imported.payload, descriptor.allocation_size
    if allocation is not None:
        size = allocation.size
    elif device.described is not None and not imported.capacity:
        allocation = cross_api.by_object(device.described, imported, descriptor)
    else:
        native = dedicated.native if dedicated is not None else None
        allocation = device.backend.import_payload(
            ImportRequest(payload, size, kind, native, imported.capacity, imported.identity, export_types, terms)
        )
    record = MemoryRecord(device, allocation, descriptor, size, kind)
    record.references = (imported.reference,)
    record.manager = owner
    # A name is spoken without the directory of its session.
    record.name = imported.name.rpartition("BaseNamedObjects\\")[2] if imported.name else None
    record.object_id = imported.object
    record.kmt = imported.kmt
    record.import_handle_type = handle_type
    record.writable = payload.writable
    return record


def dedicated_resource(chained: vk.MemoryDedicatedAllocateInfo) -> ResourceObject | None:
    """What the memory is dedicated to; None for nothing.

    Errors: TypeError for what is not a Buffer or Image in its own field. A number would be an object of which nothing
    is known: it comes in through `extmem.raw.adopt_buffer` or `adopt_image`.
    """
    found: ResourceObject | None = None
    for field, value, wanted in (("image", chained.image, ImageObject), ("buffer", chained.buffer, BufferObject)):
        if isinstance(value, wanted):
            found = found or value
        elif value is not None and value != 0:
            article = "an" if field == "image" else "a"
            raise TypeError(
                f"MemoryDedicatedAllocateInfo.{field} is {value!r}: pass the {field.capitalize()} from create_{field}; "
                f"{article} {field} of another binding comes in through extmem.raw.adopt_{field}"
            )
    return found


_DEDICATED = ("<MemoryDedicatedAllocateInfo>.image", "<MemoryDedicatedAllocateInfo>.buffer")
_NUMBERS = (".allocation_size", ".memory_type_index", ".handle_types", ".handle_type", ".access", ".flags")


def check_fields(device: DeviceState, info: vk.MemoryAllocateInfo) -> None:
    """Refuse what is not of the kind that belongs there, before it is used. Unchecked, that is a TypeError.

    `dedicated_resource` refuses what is neither a buffer nor an image with more advice. Unchecked, a number may be
    whatever stands for one.
    """
    found = rules.check_allocate_memory_fields(info, device.facts)
    left = _DEDICATED if device.check == "raise" else _DEDICATED + _NUMBERS
    found = [one for one in found if not one.where.endswith(left)]
    if found and device.check == "raise":
        raise RuleViolation(found, command="vkAllocateMemory")
    if found:
        raise TypeError(f"{found[0].where}: {found[0].problem}. {found[0].remedy}")


def check_allocation(
    device: DeviceState,
    info: vk.MemoryAllocateInfo,
    dedicated: ResourceObject | None,
    source: Source | None,
    export_types: MemoryHandleType = NO_TYPES,
) -> None:
    """Raise what the rules, or the lack of anything to import, say. export_types: those in the chain of `info`."""
    error = source.error if source is not None else None
    if device.check != "off":
        found = rules.check_allocate_memory(info, _facts(device, info, dedicated, source, export_types))
        if found and error is not None and source is not None and source.refusal is not None:
            own = [v for v in found if v.vuid in _REFUSED_RULES]
            if len(own) == len(found):
                # The object manager's own error says more than the rule alone; it carries the rule.
                error.violations = tuple(found)
                raise error
        device.report(found, "vkAllocateMemory")
    if error is not None:
        raise error


_REFUSED_RULES = frozenset(
    f"VUID-VkImportMemoryWin32HandleInfoKHR-handleType-{number}" for number in ("01440", "00661")
)


def _facts(
    device: DeviceState,
    info: vk.MemoryAllocateInfo,
    dedicated: ResourceObject | None,
    source: Source | None,
    export_types: MemoryHandleType,
) -> rules.AllocateFacts:
    resource = dedicated.facts if dedicated is not None else None
    types = union(export_types, source.handle_type) if source is not None else export_types
    return rules.AllocateFacts(
        device=device.facts,
        dedicated=resource,
        capabilities=_capabilities(device, resource, types) if types else {},
        payload=cross_api.facts_for(device, source.facts) if source is not None else None,
        refusal=source.refusal if source is not None else None,
        fd_is_valid=source.fd_is_valid if source is not None else None,
        host_memory_type_bits=_host_bits(device, source),
        host_range_mapped=(
            device.backend.host_range_mapped(source.host_pointer, int(info.allocation_size))
            if source is not None and source.handle_type & HOST_TYPES
            else None
        ),
        live_allocations=device.live_allocations,
        max_allocations=device.max_allocations,
    )


def _capabilities(
    device: DeviceState, resource: rules.ResourceFacts | None, types: MemoryHandleType
) -> Mapping[MemoryHandleType, rules.ExternalMemoryFacts]:
    if resource is None:
        return rule_facts.sharing(device, MemoryHandleType(types & _U32)).capabilities
    if resource.kind == "image" and isinstance(resource.create_info, vk.ImageCreateInfo):
        return image_queries.image_capabilities(device, resource.create_info, tuple(bits_of(types)))
    if isinstance(resource.create_info, vk.BufferCreateInfo):
        return rule_facts.buffer_capabilities(device, resource.create_info, types)
    return {}


def _host_bits(device: DeviceState, source: Source | None) -> int | None:
    if source is None or not source.handle_type & HOST_TYPES or not source.host_pointer:
        return None
    return device.backend.host_pointer_memory_type_bits(source.handle_type, source.host_pointer)
