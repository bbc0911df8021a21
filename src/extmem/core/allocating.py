"""vkAllocateMemory: the rules first, then the device, then the object manager. An error undoes the steps before it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import msgspec

from extmem import rules, vk
from extmem.core import companion_pages, cross_api, import_source, validation_cache
from extmem.core.caller_fd import CallerFd
from extmem.core.companion_pages import CompanionPages
from extmem.core.device_state import DeviceState
from extmem.core.import_source import Source
from extmem.core.memory_record import HeldMemory, Made, Make, MemoryRecord
from extmem.core.resources import BufferObject, ImageObject, ResourceObject, keep_resource
from extmem.devices.backend import Allocation
from extmem.devices.types import ImportRequest
from extmem.errors import DriverError, InvalidHandleError, RuleViolation
from extmem.manager import Imported, Manager, ShareTerms
from extmem.objects import Status
from extmem.owning import LateModule, Uses
from extmem.rules import Refusal
from extmem.sharing.descriptor import Descriptor
from extmem.sharing.keeping import NOT_KEPT, Keep
from extmem.vk.handle_types import HOST_TYPES, NO_TYPES, SIZED_BY_D3D, MemoryHandleType, union

if TYPE_CHECKING:
    from extmem.core import describing, exporting, image_queries, rule_facts
    from extmem.core.deferred import DeferredImport
    from extmem.vk import struct_copies, value_text
else:
    describing = LateModule(globals(), "extmem.core.describing")
    exporting = LateModule(globals(), "extmem.core.exporting")
    image_queries = LateModule(globals(), "extmem.core.image_queries")
    rule_facts = LateModule(globals(), "extmem.core.rule_facts")
    struct_copies = LateModule(globals(), "extmem.vk.struct_copies")
    value_text = LateModule(globals(), "extmem.vk.value_text")

__all__ = [
    "ArrayTerms",
    "adopt",
    "adopt_object",
    "allocate_in",
    "allocate_memory",
    "check_allocation",
    "check_fields",
    "dedicated_resource",
]

_U32 = 0xFFFF_FFFF


class ArrayTerms(msgspec.Struct, frozen=True):
    """What the high-level API adds to a VkMemoryAllocateInfo."""

    descriptor: Descriptor
    """The descriptor with the array."""
    lazy_share: bool = False
    """Whether the NT share is created when a handle is first requested."""
    pages: CompanionPages | None = None
    """Its companion pages, which the memory owns from then on. The descriptor lists their roles."""
    terms: ShareTerms | None = None
    """How the caller shares it later, once it has its contents: for systems where memory is named at its creation."""
    replace: bool = False
    """Whether the memory takes the name of the object that has it."""
    keep: Keep = NOT_KEPT
    """How long the object manager itself keeps the memory."""


def allocate_memory(
    device: DeviceState,
    info: vk.MemoryAllocateInfo,
    make: Make[Made],
    stated_descriptor: Descriptor | None = None,
    resource: ResourceObject | None = None,
) -> Made:
    """Allocate or import as `info` states. Errors: see `Device.allocate_memory`.

    make: makes the result.
    stated_descriptor: the one that the caller states, of a payload that carries none.
    resource: the buffer or image that the memory is dedicated to; it is destroyed when the memory ends.
    """
    info = struct_copies.copy_struct(info)
    with Uses(device) as uses:
        held, caller_fd = allocate_in(uses, device, info, stated_descriptor=stated_descriptor, resource=resource)
    memory = make(*held)
    if caller_fd is not None:
        if caller_fd.handle is None:
            caller_fd.arm()
        caller_fd.consume()
    return memory


def allocate_in(
    uses: Uses,
    device: DeviceState,
    info: vk.MemoryAllocateInfo,
    array_terms: ArrayTerms | None = None,
    *,
    stated_descriptor: Descriptor | None = None,
    resource: ResourceObject | None = None,
) -> tuple[HeldMemory, CallerFd | None]:
    """Return the memory, and the fd that it was imported from, which is not consumed yet.

    uses: hold the device. info: no other code changes it. array_terms: of an allocation, not of an import.
    """
    key = validation_cache.allocation_key(info) if stated_descriptor is None else None
    # The types of the fields are checked even if no rule is applied. That check has a key of its own.
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
            source = import_source.resolve(device.backend, link, uses, stated_descriptor)
    try:
        export_types = MemoryHandleType(int(export.handle_types)) if export is not None else NO_TYPES
        if device.check != "off" or (source is not None and source.error is not None):
            if source is not None:
                key = validation_cache.import_key(key, source.descriptor_bytes) if source.error is None else None
            if key not in device.validated or not device.has_room:
                check_allocation(device, info, dedicated, source, export_types)
                if device.check == "raise":  # it has not raised
                    device.validated.note(key)
        if export_types:
            exporting.refuse_direct3d_types(device, export_types)
        size, memory_type = int(info.allocation_size), int(info.memory_type_index)
        terms = exporting.terms_of(export_types, chained) if export_types else None
        if terms is not None and array_terms is not None and (array_terms.replace or array_terms.keep is not NOT_KEPT):
            terms = msgspec.structs.replace(terms, replace=array_terms.replace, keep=array_terms.keep)
        if dedicated is not None:
            uses.add(dedicated)
        if source is not None:
            try:
                record = adopt(device, source, size, memory_type, dedicated, export_types, terms)
            except InvalidHandleError as error:  # only the driver could detect it
                source.refusal = Refusal(Status.INVALID_PARAMETER.name, str(error))
                if device.check != "off":
                    facts = _facts(device, info, dedicated, source, export_types)
                    error.violations = tuple(rules.check_allocate_memory(info, facts))
                raise
        else:
            driver_terms = terms
            if array_terms is None:
                descriptor = describing.describe_allocation(device, size, memory_type, export_types, dedicated)
            else:
                descriptor = array_terms.descriptor
                driver_terms = (
                    None if array_terms.lazy_share or terms is None else msgspec.structs.replace(terms, described=True)
                )
                if array_terms.terms is not None:
                    driver_terms = msgspec.structs.replace(array_terms.terms, described=True)
            allocation = device.backend.allocate(
                size,
                memory_type,
                descriptor.encode(),
                handle_types=export_types,
                dedicated=dedicated.native if dedicated is not None else None,
                terms=driver_terms,
            )
            resource_facts = dedicated.facts if dedicated is not None else None
            record = MemoryRecord(
                device,
                allocation,
                descriptor,
                size,
                memory_type,
                dedicated=resource_facts,
                pages=array_terms.pages if array_terms is not None else None,
            )
    except BaseException:
        if source is not None:
            source.abandon()
        if array_terms is not None and array_terms.pages is not None:
            array_terms.pages.close()  # else their files would be open as long as the traceback
        raise
    record.export_handle_types = export_types
    if resource is not None:
        keep_resource(record, resource)
    if array_terms is not None and not device.backend.allocates_zeroed:
        # The device fills dedicated memory through its buffer, which may be smaller than the memory. It is published
        # afterwards: a process that waits for its name opens it at once.
        try:
            device.backend.fill(record.allocation, 0, size if dedicated is None else record.descriptor.payload_size, 0)
        except BaseException:
            record.end()
            raise
    if terms is not None:
        record.lazy_share = array_terms is not None and array_terms.lazy_share
        if not record.lazy_share:
            try:
                exporting.publish(record, terms)
            except BaseException:
                record.end()
                raise
    memory = HeldMemory(record, record.hold())
    return memory, source.caller_fd if source is not None and source.fd_is_valid else None


def adopt(
    device: DeviceState,
    source: Source,
    size: int,
    memory_type: int,
    dedicated: ResourceObject | None,
    export_types: MemoryHandleType = NO_TYPES,
    terms: ShareTerms | None = None,
) -> MemoryRecord:
    """Import the source of `resolve`; the record owns its references from then on.

    export_types, terms: those of the export of the imported memory, for a driver that does both in one call.
    """
    descriptor, importer = source.descriptor, device.descriptor_importer
    if descriptor is None:
        if dedicated is not None and importer is None and source.handle_type in SIZED_BY_D3D:
            size = dedicated.requirements.size or size or 1  # drivers may report 0, and callers may pass it
        if size < 1:
            # Without the exporter's size, no rule applies, and some drivers accept such an import.
            raise DriverError(
                f"vkAllocateMemory: {size} bytes are to be imported; pass the exporter's allocationSize",
                result=vk.Result.ERROR_INVALID_EXTERNAL_HANDLE,
                command="vkAllocateMemory",
                devices=[device.name],
            )
        if importer is not None and source.imported is not None:
            descriptor = cross_api.describe_foreign(device, source, size, memory_type)
        else:
            descriptor = describing.describe_allocation(device, size, memory_type, source.handle_type, dedicated)
    if descriptor.allocation_size != size:
        # Reached only if the rules are off or cause warnings. The import would read or write beyond the payload.
        raise DriverError(
            f"vkAllocateMemory: allocationSize {size} differs from the payload's {descriptor.allocation_size}; "
            "pass the exporter's (it is in the descriptor)",
            result=vk.Result.ERROR_INVALID_EXTERNAL_HANDLE,
            command="vkAllocateMemory",
            devices=[device.name, descriptor.device_name],
        )
    if source.imported is not None and source.owner is not None:
        handle_type, imported = source.handle_type, source.imported
        record = adopt_object(
            device, source.owner, imported, descriptor, memory_type, handle_type, dedicated, export_types, terms
        )
        source.imported = None
        return record
    if importer is not None and source.fd_is_valid:
        allocation = cross_api.import_caller_fd(importer, source)
    else:
        native = dedicated.native if dedicated is not None else None
        allocation = source.allocation(device.backend, size, memory_type, native)
    return MemoryRecord(
        device,
        allocation,
        descriptor,
        size,
        memory_type,
        dedicated=dedicated.facts if dedicated is not None else None,
        import_handle_type=source.handle_type,
        writable=source.writable,
        identity=source.fd_payload.identity if source.fd_payload is not None else 0,
    )


def adopt_object(
    device: DeviceState,
    owner: Manager,
    imported: Imported,
    descriptor: Descriptor,
    memory_type: int,
    handle_type: MemoryHandleType,
    dedicated: ResourceObject | None = None,
    export_types: MemoryHandleType = NO_TYPES,
    terms: ShareTerms | None = None,
    allocation: Allocation | None = None,
    deferred: DeferredImport | None = None,
) -> MemoryRecord:
    """Import a payload that the object manager returned; the record owns it from then on.

    allocation: the import, if it was made already. deferred: makes it, if it is made later.
    """
    payload, size = imported.payload, descriptor.allocation_size
    pages = None
    if descriptor.pages:
        # Before the import: a driver may take the payload, and close it.
        pages = companion_pages.of_import(descriptor.pages, payload)
    if allocation is not None:
        size = allocation.size
    elif deferred is not None:
        pass
    elif device.descriptor_importer is not None and not imported.capacity:
        if descriptor.parts:
            allocation = cross_api.import_parts(device.descriptor_importer, owner, imported, descriptor)
        else:
            allocation = cross_api.import_object(device.descriptor_importer, imported, descriptor)
    else:
        native = dedicated.native if dedicated is not None else None
        allocation = device.backend.import_payload(
            ImportRequest(payload, size, memory_type, native, imported.capacity, imported.identity, export_types, terms)
        )
    return MemoryRecord(
        device,
        allocation,
        descriptor,
        size,
        memory_type,
        dedicated=dedicated.facts if dedicated is not None else None,
        references=(imported.reference,),
        manager=owner,
        # The name as a program passes it, without the directory of its session.
        name=imported.name.rpartition("BaseNamedObjects\\")[2] if imported.name else None,
        object_id=imported.object,
        kmt=imported.kmt,
        import_handle_type=handle_type,
        writable=payload.writable,
        pages=pages,
        deferred=deferred,
    )


def dedicated_resource(link: vk.MemoryDedicatedAllocateInfo) -> ResourceObject | None:
    """Return the resource that the memory is dedicated to; None for none.

    Errors: TypeError for a value that is not a Buffer or Image in its own field. A number would refer to a resource
    without known facts; `extmem.raw.adopt_buffer` and `adopt_image` make a resource of it.
    """
    resource: ResourceObject | None = None
    for field, value, wanted in (("image", link.image, ImageObject), ("buffer", link.buffer, BufferObject)):
        if isinstance(value, wanted):
            resource = resource or value
        elif value is not None and value != 0:
            article = "an" if field == "image" else "a"
            raise TypeError(
                f"MemoryDedicatedAllocateInfo.{field} is {value!r}: pass the {field.capitalize()} from create_{field}; "
                f"{article} {field} of another binding comes in through extmem.raw.adopt_{field}"
            )
    return resource


_DEDICATED = ("<MemoryDedicatedAllocateInfo>.image", "<MemoryDedicatedAllocateInfo>.buffer")
_NUMBERS = (".allocation_size", ".memory_type_index", ".handle_types", ".handle_type", ".access", ".flags")


def check_fields(device: DeviceState, info: vk.MemoryAllocateInfo) -> None:
    """Refuse values of a wrong type before they are used. Errors: RuleViolation; TypeError if the rules are not raised.

    The resource of a dedicated allocation is checked by `dedicated_resource`, whose message has more advice. If the
    rules are not raised, a number may be any object that can be converted to one.
    """
    found = rules.check_allocate_memory_fields(info, device.facts)
    ignored = _DEDICATED if device.check == "raise" else _DEDICATED + _NUMBERS
    found = [one for one in found if not one.where.endswith(ignored)]
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
    """Report the broken rules, and raise the error of the source. export_types: those in the chain of `info`."""
    error = source.error if source is not None else None
    if device.check != "off":
        found = rules.check_allocate_memory(info, _facts(device, info, dedicated, source, export_types))
        if found and error is not None and source is not None and source.refusal is not None:
            if all(violation.vuid in _REFUSED_RULES for violation in found):
                # The error of the object manager has more details than the rule; it carries the violation.
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
    source = source or Source(NO_TYPES)  # imports nothing
    backend, handle_type, pointer = device.backend, source.handle_type, source.host_pointer
    of_host = bool(handle_type & HOST_TYPES)
    return rules.AllocateFacts(
        device=device.facts,
        dedicated=resource,
        capabilities=_capabilities(device, resource, union(export_types, handle_type)),
        payload=cross_api.facts_for(device, source.facts),
        refusal=source.refusal,
        fd_is_valid=source.fd_is_valid,
        host_memory_type_bits=backend.host_pointer_memory_type_bits(handle_type, pointer)
        if of_host and pointer
        else None,
        host_range_mapped=backend.host_range_mapped(pointer, int(info.allocation_size)) if of_host else None,
        live_allocations=device.live_allocations,
        max_allocations=device.max_allocations,
    )


def _capabilities(
    device: DeviceState, resource: rules.ResourceFacts | None, types: MemoryHandleType
) -> Mapping[MemoryHandleType, rules.ExternalMemoryFacts]:
    if not types:
        return {}
    if resource is None:
        return rule_facts.sharing(device, MemoryHandleType(types & _U32)).capabilities
    if isinstance(resource.create_info, vk.ImageCreateInfo):
        return image_queries.image_capabilities(device, resource.create_info, tuple(value_text.bits_of(types)))
    return rule_facts.buffer_capabilities(device, resource.create_info, types)
