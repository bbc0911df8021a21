"""Imports of a CUDA device: by descriptor, of host payloads and host pointers; and a look at strangers' fds."""

from __future__ import annotations

import os
import stat
from typing import TYPE_CHECKING

from extmem import vk
from extmem.devices.backend import FdFacts, Origin
from extmem.devices.cuda.capabilities import HOST_TYPE
from extmem.devices.cuda.external import External
from extmem.devices.cuda.memory import CudaAllocation, HostMapping, Undo
from extmem.devices.cuda.vmm import PRODUCER
from extmem.errors import DriverError

if TYPE_CHECKING:
    from extmem.devices.cuda.backend import CudaBackend
    from extmem.sharing.payload import PayloadFd

__all__ = ["Imports"]

_FD = int(vk.ExternalMemoryHandleTypeFlagBits.OPAQUE_FD)
_NOT_A_PAYLOAD = {stat.S_IFSOCK: "a socket", stat.S_IFDIR: "a directory", stat.S_IFIFO: "a pipe"}
_KNOWN = FdFacts("known", writable=True, self_describing=False)
_KINDS = {stat.S_IFSOCK: "socket", stat.S_IFDIR: "directory", stat.S_IFIFO: "pipe", stat.S_IFCHR: "device"}


class Imports:
    """What comes in from outside."""

    def __init__(self, backend: CudaBackend) -> None:
        self._backend = backend
        self._gpu = backend.gpu
        self._external = External(backend)

    def described(
        self,
        handle: int,
        origin: Origin,
        *,
        payload: PayloadFd | None = None,
        name: str | None = None,
        identity: int = 0,
        writable: bool = True,
    ) -> CudaAllocation:
        """See `ImportsByDescriptor`."""
        here = self._gpu.identity
        if not here.may_be(origin.device_uuid, origin.luid):
            there = (origin.device_uuid or origin.luid or b"").hex()
            raise DriverError(
                f"the payload lies on {origin.device_name or 'device'} {there}, and {self._gpu.name} is "
                f"{here.device_uuid.hex()}{f', LUID {here.luid.hex()}' if here.luid else ''}; open it on the device "
                "that it was made on",
                result=int(vk.Result.ERROR_INVALID_EXTERNAL_HANDLE),
                command="cuImportExternalMemory",
                devices=[self._gpu.name, *origin.devices],
            )
        if origin.producer != PRODUCER:
            return self._external.import_handle(
                handle, origin, name=name, payload=payload, identity=identity, writable=writable
            )
        with self._gpu.current:
            return self._backend.vmm.import_fd(
                handle, origin.size, origin.device_name, payload=payload, identity=identity, writable=writable
            )

    def from_host_payload(self, payload: PayloadFd, size: int, capacity: int) -> CudaAllocation:
        """A host payload's pages, registered once. Errors: DriverError; UnsupportedError."""
        if size > capacity:
            raise self.refusal(f"{size} bytes are to be imported, and the payload's file has {capacity}")
        registrations = self._gpu.registrations
        with self._gpu.current:
            taken = registrations.take(payload.fd, size, writable=payload.writable)
        undo: Undo = [(registrations.give_back, taken)]
        made = CudaAllocation(
            self._backend, size, HOST_TYPE, taken.pointer, undo, payload=payload, writable=payload.writable
        )
        made.mapping = taken.mapping
        return made

    def from_host_pointer(self, address: int, size: int) -> CudaAllocation:
        """Memory that the caller owns and keeps. Errors: DriverError; UnsupportedError."""
        backend = self._backend
        alignment = backend.min_imported_host_pointer_alignment
        if address % alignment or size % alignment or not backend.host_range_mapped(address, size):
            raise self.refusal(
                f"{size} bytes at {address:#x} cannot be imported: address and size must be multiples of {alignment}, "
                "and all of it mapped here for reading and writing"
            )
        registrations = self._gpu.registrations
        with self._gpu.current:
            pointer = registrations.register(address, size, writable=True)
        made = CudaAllocation(backend, size, HOST_TYPE, pointer, [(registrations.unregister, address)])
        made.mapping = HostMapping(address, size)
        return made

    def inspect_fd(self, fd: int, handle_type: int, *, known: bool = False) -> FdFacts:
        """See `CudaBackend.inspect_fd`. What this library exported itself needs to be open, and nothing else."""
        try:
            found = os.fstat(fd) if fd >= 0 else None
        except OSError:
            found = None
        if found is None:
            return FdFacts("closed", f"fd {fd} is no open file descriptor", self_describing=False)
        if known and handle_type == _FD:
            return _KNOWN
        mode = stat.S_IFMT(found.st_mode)
        kind, wrong = _KINDS.get(mode, "other"), _NOT_A_PAYLOAD.get(mode)
        if wrong is not None:
            return FdFacts(kind, f"fd {fd} is {wrong}, and no driver exports one", self_describing=False)
        if handle_type != _FD:
            return FdFacts(kind, str(self._backend.unsupported_type(handle_type)), self_describing=False)
        return FdFacts(
            kind, size=found.st_size, writable=True, identity=(found.st_dev, found.st_ino), self_describing=False
        )

    def refusal(self, problem: str) -> DriverError:
        """What to raise for what cannot be a payload."""
        return DriverError(
            f"vkAllocateMemory: {problem}",
            result=int(vk.Result.ERROR_INVALID_EXTERNAL_HANDLE),
            command="vkAllocateMemory",
            devices=[self._gpu.name],
        )
