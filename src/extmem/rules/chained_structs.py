"""Structs that may be chained to an allocation, and the state of the device."""

from __future__ import annotations

from extmem import vk
from extmem.rules._allocation import ALLOCATE, BASE, Allocation, Traits, chained
from extmem.rules._conditions import always, has_bits, is_true, is_zero, not_positive
from extmem.rules._enabled import CHAINED
from extmem.rules._engine import Demand, demand
from extmem.rules._text import is_null

__all__: list[str] = []


_CHAIN = f"{BASE}.pNext"
_NV_EXPORTS = (vk.ExportMemoryAllocateInfoNV, vk.ExportMemoryWin32HandleInfoNV)
_DEDICATED_HOST_IMPORT = "a host pointer import is dedicated to a buffer or image"


def _foreign_structs(call: Allocation) -> tuple[str, str] | None:
    """Return what is wrong with structs that do not extend an allocation, or are not enabled, and their names."""
    foreign = dict.fromkeys(type(node).__name__ for node in call.foreign)
    lacking = {struct.__name__: CHAINED[struct].text for struct in call.lacking}
    if not foreign and not lacking:
        return None
    problems = [f"{', '.join(foreign)} does not extend an allocation"] if foreign else []
    problems += [f"{name} needs {needs}, which is not enabled" for name, needs in lacking.items()]
    return "; ".join(problems), ", ".join([*foreign, *lacking])


def _repeated(call: Allocation) -> str:
    return ", ".join(call.repeated)


def _nv_exports(call: Allocation) -> str:
    return " and ".join(dict.fromkeys(type(node).__name__ for _, node in call.nodes if type(node) in _NV_EXPORTS))


def _imports(call: Allocation) -> tuple[int, str]:
    types = {
        "ImportMemoryWin32HandleInfoKHR": call.win32_type,
        "ImportMemoryFdInfoKHR": call.fd_type,
        "ImportMemoryHostPointerInfoEXT": call.host_type,
    }
    names = [name for name, handle_type in types.items() if handle_type]
    return len(names), " and ".join(names)


def _dedicated_nv(call: Allocation) -> bool:
    nv = call.dedicated_nv
    return nv is not None and not (is_null(nv.image) and is_null(nv.buffer))


def _no_capture_address(vuid: str, beside: str, needs: int) -> Demand:
    return Demand(
        vuid,
        is_true("capture_address.opaque_capture_address"),
        f"{chained(vk.MemoryOpaqueCaptureAddressAllocateInfo)}.opaque_capture_address",
        f"it is {{found:#x}} together with {beside}",
        "Set opaque_capture_address to 0, or remove the struct.",
        needs=Traits.HAS_CAPTURE_ADDRESS | needs,
    )


demand(
    ALLOCATE,
    Demand(
        "vkAllocateMemory-device-parameter",
        is_zero("device.alive"),
        "vkAllocateMemory.device",
        "the device {call.device.name!r} is closed",
        "Allocate before closing the device.",
        needs=Traits.ODD_DEVICE,
    ),
    Demand(
        "vkAllocateMemory-device-queuecount",
        not_positive("device.queue_count"),
        "vkAllocateMemory.device",
        "the device {call.device.name!r} was created without queues",
        "Create the device with at least one queue.",
        needs=Traits.ODD_DEVICE,
    ),
    Demand(
        "VkMemoryAllocateInfo-pNext-pNext",
        _foreign_structs,
        _CHAIN,
        "{found[0]}",
        "Take {found[1]} out of the chain.",
        needs=Traits.ODD_CHAIN,
    ),
    Demand(
        "VkMemoryAllocateInfo-sType-unique",
        _repeated,
        _CHAIN,
        "{found} is in the chain more than once",
        "Keep one struct of each type.",
        needs=Traits.ODD_CHAIN,
    ),
    Demand(  # whatever the fields of the two structs are
        "VkMemoryAllocateInfo-pNext-00641",
        always,
        _CHAIN,
        "ImportMemoryWin32HandleInfoKHR and ImportMemoryWin32HandleInfoNV are both in the chain",
        "Keep ImportMemoryWin32HandleInfoKHR; the NV struct is its predecessor.",
        needs=Traits.HAS_WIN32 | Traits.HAS_IMPORT_WIN32_NV,
    ),
    Demand(
        "VkMemoryAllocateInfo-pNext-00640",
        _nv_exports,
        _CHAIN,
        "ExportMemoryAllocateInfo is chained together with {found}",
        "Keep ExportMemoryAllocateInfo (with ExportMemoryWin32HandleInfoKHR for a name, access or security).",
        needs=Traits.HAS_EXPORT,
    ),
    Demand(
        "VkMemoryAllocateInfo-None-06657",
        _imports,
        _CHAIN,
        "the chain imports {found[0]} payloads at once, by {found[1]}",
        "Import one payload in each call; set handle_type to 0 in the structs that are not to be used.",
        needs=Traits.MANY_IMPORTS,
    ),
    # The address of imported memory was fixed when its payload was allocated.
    _no_capture_address("VkMemoryAllocateInfo-opaqueCaptureAddress-03333", "an import", Traits.IMPORTS),
    # This rule applies to any host pointer struct in the chain, even with handle type 0.
    _no_capture_address("VkMemoryAllocateInfo-pNext-03332", "a host pointer struct", Traits.HAS_HOST),
    Demand(
        "VkMemoryAllocateFlagsInfo-flags-10760",
        has_bits("flags.flags", vk.MemoryAllocateFlagBits.ZERO_INITIALIZE_EXT),
        f"{chained(vk.MemoryAllocateFlagsInfo)}.flags",
        "ZERO_INITIALIZE would overwrite the imported payload",
        "Omit ZERO_INITIALIZE, and clear the memory yourself if that is intended.",
        needs=Traits.HAS_FLAGS | Traits.IMPORTS,
    ),
    Demand(
        "VkMemoryAllocateInfo-pNext-02805",
        _dedicated_nv,
        chained(vk.DedicatedAllocationMemoryAllocateInfoNV),
        _DEDICATED_HOST_IMPORT,
        "Take DedicatedAllocationMemoryAllocateInfoNV out of the chain.",
        needs=Traits.IMPORTS_HOST | Traits.HAS_DEDICATED_NV,
    ),
    Demand(
        "VkMemoryAllocateInfo-pNext-02806",
        always,
        chained(vk.MemoryDedicatedAllocateInfo),
        _DEDICATED_HOST_IMPORT,
        "Take MemoryDedicatedAllocateInfo out of the chain.",
        needs=Traits.IMPORTS_HOST | Traits.DEDICATED,
    ),
)
