"""Host payloads on the GPU: their pages are registered with CUDA once for each payload, and counted.

How this works. Registering pins the pages and maps them into the GPU's address space (cuMemHostRegister); it takes the
longer the more there are. All imports of a payload in this process share one registration and one mapping of the file;
the last one that closes ends both.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec

from extmem.devices import host
from extmem.devices.cuda.handle_types import recognisable, same_payload
from extmem.devices.cuda.results import check, fail
from extmem.errors import UnsupportedError
from extmem.owning import Lock

if TYPE_CHECKING:
    from collections.abc import Mapping as ReadOnlyDict

    from extmem.devices.backend import Mapping

__all__ = ["Registered", "Registrations"]

_PORTABLE, _DEVICE_MAP, _READ_ONLY = 0x01, 0x02, 0x08
_PAGE = 4096
_Key = tuple[int, bool, tuple[int, int] | None]
"""Size, whether it may be written, and the identity of its file, if the system has one."""


class Registered(msgspec.Struct):
    """A payload's pages on the GPU. Counted: one `Registrations.give_back` for each `take`."""

    key: _Key
    pointer: int
    """CUdeviceptr."""
    mapping: Mapping | None
    held: object = None
    """What recognizes the payload by another one of its handles."""
    users: int = 1


class Registrations:
    """The registrations of one GPU in this process."""

    def __init__(self, module: Any, name: str, can: ReadOnlyDict[str, int]) -> None:
        """module: of CUDA's driver API. name: the GPU's. can: what it can do, by name (`Gpu.can`)."""
        self._module, self._name, self._can = module, name, can
        self._by_file: dict[_Key, list[Registered]] = {}
        self._lock = Lock()

    def take(self, fd: int, size: int, *, writable: bool) -> Registered:
        """Register the first `size` bytes of a host payload. Its fd or handle is borrowed for the call.

        The primary context is current. Errors: UnsupportedError; DriverError; OSError where it cannot be mapped.
        """
        key = (size, writable, host.identity_of(fd))
        with self._lock:
            for registered in self._by_file.get(key, ()):
                if same_payload(registered.held, fd):
                    registered.users += 1
                    return registered
            mapping, held = host.map_file(fd, size, writable), recognisable(fd)
            pointer = self.register(mapping.address, size, writable=writable)
            registered = Registered(key, pointer, mapping, held)
            self._by_file.setdefault(key, []).append(registered)
            return registered

    def give_back(self, registered: Registered) -> None:
        """Release one use. The last one unregisters the pages and ends the mapping. The primary context is current."""
        with self._lock:
            registered.users -= 1
            if registered.users:
                return
            self._by_file[registered.key].remove(registered)
            if not self._by_file[registered.key]:
                del self._by_file[registered.key]
            registered.held = None
            if registered.mapping is not None:
                self.unregister(registered.mapping.address)
                registered.mapping = None

    def register(self, address: int, size: int, *, writable: bool) -> int:
        """Pin and map the pages; return the CUdeviceptr. Errors: UnsupportedError, DriverError."""
        cu, flags = self._module, _PORTABLE | _DEVICE_MAP
        if not self._can["maps_host"]:
            raise UnsupportedError(
                f"{self._name} does not map host memory; copy the payload to memory of the GPU",
                requires_one_of=["CU_DEVICE_ATTRIBUTE_CAN_MAP_HOST_MEMORY", "memory of the GPU"],
            )
        if not writable:
            if not self._can["registers_read_only"]:
                raise UnsupportedError(
                    f"{self._name} registers host memory for reading and writing alone, and this payload is read-only "
                    "here; open it on the host device, or ask its owner for write access",
                    requires_one_of=["the right to write", "the host device"],
                )
            flags |= _READ_ONLY
        (result,) = cu.cuMemHostRegister(address, -(-size // _PAGE) * _PAGE, flags)
        check(result, "cuMemHostRegister", self._name, tried=f"{size} bytes at {address:#x}")
        result, pointer = cu.cuMemHostGetDevicePointer(address, 0)
        if result:
            self.unregister(address)
            fail(result, "cuMemHostGetDevicePointer", self._name, tried=f"{address:#x}")
        return int(pointer)

    def unregister(self, address: int) -> None:
        """cuMemHostUnregister."""
        self._module.cuMemHostUnregister(address)
