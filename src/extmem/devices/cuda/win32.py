"""The security of CUDA's memory on Windows: which users may open a handle of it.

How this works. CUmemAllocationProp::win32HandleMetaData points to OBJECT_ATTRIBUTES with a security descriptor. CUDA
has no names for memory: the object manager keeps them (`manager.windows.exporter_names`). It is not documented when the
driver reads the security descriptor, at cuMemCreate or when a handle is exported; so it is kept as long as the memory.
Sources: CUDA driver API, CUmemAllocationProp and cuMemCreate; NVIDIA's sample memMapIPCDrv.
"""

from __future__ import annotations

import sys

if sys.platform != "win32":
    raise ImportError("these are Windows's security descriptors; extmem.devices.cuda.handle_types picks what there is")

import ctypes
from contextlib import suppress
from typing import TYPE_CHECKING

from extmem.handles._win32 import calls
from extmem.handles._win32.calls import StatusError
from extmem.handles._win32.tables import advapi32
from extmem.manager.windows import driver_memory
from extmem.manager.windows.security_descriptors import security_descriptor, user_sid
from extmem.objects import FLAG_INHERIT
from extmem.owning import OwnedDescriptor, OwnedFd

if TYPE_CHECKING:
    from extmem.sharing.terms import ShareTerms

__all__ = ["Terms", "make_private", "recognisable", "same_payload"]


class Terms:
    """OBJECT_ATTRIBUTES for one allocation, at `address`; valid while this object lives.

    Errors: NameTakenError, NameInvalidError, SecurityDescriptorError before the driver is asked.
    """

    def __init__(self, terms: ShareTerms | None) -> None:
        """terms: how it is shared; None for sharing by handle among this user's processes."""
        if terms is not None and terms.name is not None:
            driver_memory.refuse_taken(terms.name)
        sddl = terms.sddl if terms is not None else None
        with security_descriptor(sddl or f"D:(A;;GA;;;{user_sid()})(A;;GA;;;SY)") as address:
            length = int(advapi32.GetSecurityDescriptorLength(address))
            self._security = ctypes.create_string_buffer(ctypes.string_at(address, length), length)
        self._attributes = calls.attributes(None, ctypes.addressof(self._security))
        self.address = ctypes.addressof(self._attributes)


def make_private(handle: int) -> None:
    """Make the handle not inheritable. A protected handle is left unchanged."""
    with suppress(StatusError):
        calls.set_flags(handle, FLAG_INHERIT, 0)


def recognisable(handle: int) -> OwnedFd:
    """Return a duplicate of the handle, by which the payload is recognized again. It is closed with the result."""
    return OwnedDescriptor(calls.duplicate(handle, options=calls.SAME_ACCESS))


def same_payload(held: object, handle: int) -> bool:
    """Whether a handle leads to the payload of `held`, which `recognisable` returned."""
    return isinstance(held, OwnedFd) and calls.same_object(held.fd, handle) is True
