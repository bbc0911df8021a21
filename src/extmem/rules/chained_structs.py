"""Structs that may be chained to an allocation, and the state of the device."""

from __future__ import annotations

from extmem import vk
from extmem.rules._allocation import ALLOCATE, BASE, Allocation, Traits, chained
from extmem.rules._enabled import CHAINED
from extmem.rules._engine import Finding, rule
from extmem.rules._text import is_null

__all__: list[str] = []


@rule("vkAllocateMemory-device-parameter", on=ALLOCATE, needs=Traits.ODD_DEVICE)
def device_is_alive(call: Allocation) -> Finding | None:
    """The device was not closed."""
    if call.device.alive:
        return None
    return (
        "vkAllocateMemory.device",
        f"the device {call.device.name!r} is closed",
        "Allocate before closing the device.",
    )


@rule("vkAllocateMemory-device-queuecount", on=ALLOCATE, needs=Traits.ODD_DEVICE)
def device_has_queues(call: Allocation) -> Finding | None:
    """A device without queues can only be destroyed."""
    if call.device.queue_count > 0:
        return None
    return (
        "vkAllocateMemory.device",
        f"the device {call.device.name!r} was created without queues",
        "Create the device with at least one queue.",
    )


@rule("VkMemoryAllocateInfo-pNext-pNext", on=ALLOCATE, needs=Traits.ODD_CHAIN)
def only_extending_structs(call: Allocation) -> Finding | None:
    """The chain contains only structs that extend an allocation, and whose extensions are enabled."""
    foreign = dict.fromkeys(type(node).__name__ for node in call.foreign)
    lacking = {struct.__name__: CHAINED[struct].text for struct in call.lacking}
    if not foreign and not lacking:
        return None
    problems = [f"{', '.join(foreign)} does not extend an allocation"] if foreign else []
    problems += [f"{name} needs {needs}, which is not enabled" for name, needs in lacking.items()]
    return f"{BASE}.pNext", "; ".join(problems), f"Take {', '.join([*foreign, *lacking])} out of the chain."


@rule("VkMemoryAllocateInfo-sType-unique", on=ALLOCATE, needs=Traits.ODD_CHAIN)
def each_struct_once(call: Allocation) -> Finding | None:
    """The chain contains each struct type once. A chain that leads back into itself repeats its structs."""
    if not call.repeated:
        return None
    names = ", ".join(call.repeated)
    return f"{BASE}.pNext", f"{names} is in the chain more than once", "Keep one struct of each type."


@rule("VkMemoryAllocateInfo-pNext-00641", on=ALLOCATE, needs=Traits.HAS_WIN32 | Traits.HAS_IMPORT_WIN32_NV)
def khr_or_nv_import(_call: Allocation) -> Finding | None:
    """The chain does not contain both Win32 import structs, whatever their fields are."""
    return (
        f"{BASE}.pNext",
        "ImportMemoryWin32HandleInfoKHR and ImportMemoryWin32HandleInfoNV are both in the chain",
        "Keep ImportMemoryWin32HandleInfoKHR; the NV struct is its predecessor.",
    )


@rule("VkMemoryAllocateInfo-pNext-00640", on=ALLOCATE, needs=Traits.HAS_EXPORT)
def khr_or_nv_export(call: Allocation) -> Finding | None:
    """The chain does not contain VkExportMemoryAllocateInfo together with an NV export struct."""
    nv_structs = [type(node).__name__ for _, node in call.nodes if type(node) in _NV_EXPORTS]
    if not nv_structs:
        return None
    return (
        f"{BASE}.pNext",
        f"ExportMemoryAllocateInfo is chained together with {' and '.join(dict.fromkeys(nv_structs))}",
        "Keep ExportMemoryAllocateInfo (with ExportMemoryWin32HandleInfoKHR for a name, access or security).",
    )


_NV_EXPORTS = (vk.ExportMemoryAllocateInfoNV, vk.ExportMemoryWin32HandleInfoNV)


@rule("VkMemoryAllocateInfo-None-06657", on=ALLOCATE, needs=Traits.MANY_IMPORTS)
def one_import(call: Allocation) -> Finding | None:
    """A call imports one payload at most."""
    import_structs = [
        name
        for name, handle_type in (
            ("ImportMemoryWin32HandleInfoKHR", call.win32_type),
            ("ImportMemoryFdInfoKHR", call.fd_type),
            ("ImportMemoryHostPointerInfoEXT", call.host_type),
        )
        if handle_type
    ]
    return (
        f"{BASE}.pNext",
        f"the chain imports {len(import_structs)} payloads at once, by {' and '.join(import_structs)}",
        "Import one payload in each call; set handle_type to 0 in the structs that are not to be used.",
    )


@rule(
    "VkMemoryAllocateInfo-opaqueCaptureAddress-03333",
    on=ALLOCATE,
    needs=Traits.HAS_CAPTURE_ADDRESS | Traits.IMPORTS,
)
def no_capture_address_on_import(call: Allocation) -> Finding | None:
    """The address of imported memory was fixed when its payload was allocated."""
    return _capture_address(call, "an import")


@rule("VkMemoryAllocateInfo-pNext-03332", on=ALLOCATE, needs=Traits.HAS_CAPTURE_ADDRESS | Traits.HAS_HOST)
def no_capture_address_with_host_pointer(call: Allocation) -> Finding | None:
    """The rule applies to any host pointer struct in the chain, even with handle type 0."""
    return _capture_address(call, "a host pointer struct")


def _capture_address(call: Allocation, beside: str) -> Finding | None:
    address = call.capture_address.opaque_capture_address if call.capture_address is not None else 0
    if not address:
        return None
    return (
        f"{chained(vk.MemoryOpaqueCaptureAddressAllocateInfo)}.opaque_capture_address",
        f"it is {int(address):#x} together with {beside}",
        "Set opaque_capture_address to 0, or remove the struct.",
    )


@rule("VkMemoryAllocateFlagsInfo-flags-10760", on=ALLOCATE, needs=Traits.HAS_FLAGS | Traits.IMPORTS)
def no_zeroing_on_import(call: Allocation) -> Finding | None:
    """An import must not change the contents of the payload."""
    if call.flags is None or not int(call.flags.flags) & _ZERO_INITIALIZE:
        return None
    return (
        f"{chained(vk.MemoryAllocateFlagsInfo)}.flags",
        "ZERO_INITIALIZE would overwrite the imported payload",
        "Omit ZERO_INITIALIZE, and clear the memory yourself if that is intended.",
    )


_ZERO_INITIALIZE = int(vk.MemoryAllocateFlagBits.ZERO_INITIALIZE_EXT)


@rule("VkMemoryAllocateInfo-pNext-02805", on=ALLOCATE, needs=Traits.IMPORTS_HOST | Traits.HAS_DEDICATED_NV)
def host_import_is_not_dedicated_nv(call: Allocation) -> Finding | None:
    """The NV struct does not dedicate imported host memory."""
    nv = call.dedicated_nv
    if nv is None or (is_null(nv.image) and is_null(nv.buffer)):
        return None
    return (
        chained(vk.DedicatedAllocationMemoryAllocateInfoNV),
        "a host pointer import is dedicated to a buffer or image",
        "Take DedicatedAllocationMemoryAllocateInfoNV out of the chain.",
    )


@rule("VkMemoryAllocateInfo-pNext-02806", on=ALLOCATE, needs=Traits.IMPORTS_HOST | Traits.DEDICATED)
def host_import_is_not_dedicated(_call: Allocation) -> Finding | None:
    """Imported host memory is not dedicated."""
    return (
        chained(vk.MemoryDedicatedAllocateInfo),
        "a host pointer import is dedicated to a buffer or image",
        "Take MemoryDedicatedAllocateInfo out of the chain.",
    )
