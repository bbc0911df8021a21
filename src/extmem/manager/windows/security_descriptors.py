"""SECURITY_DESCRIPTORs in memory: created from SDDL for one call, and converted to SDDL."""

from __future__ import annotations

import contextlib
import ctypes
import struct
from collections.abc import Callable, Iterator
from functools import cache

from extmem.handles._win32 import calls
from extmem.handles._win32.tables import CURRENT_PROCESS, HANDLE, advapi32, kernel32, last_error, ntdll, win_error
from extmem.manager.windows.security import Fault, find_fault, find_misshape
from extmem.objects import Status, error_for

__all__ = ["convert_masks", "sddl_from", "sddl_of", "security_descriptor", "user_sid"]

_REVISION = 1
_UNKNOWN_REVISION = 1305
_OWNER_GROUP_DACL = 7
_MAX_LENGTH = 4096
_HEADER = struct.Struct("<BBHIIII")  # SECURITY_DESCRIPTOR_RELATIVE: owner, group, SACL and DACL by offset
_ACL, _ACE = struct.Struct("<BBHHH"), struct.Struct("<BBHI")  # size, count of ACEs; type, flags, size, access mask
_SELF_RELATIVE = 0x8000
_TOKEN_QUERY, _TOKEN_USER = 8, 1


@contextlib.contextmanager
def security_descriptor(sddl: str | None, mask: Callable[[int], int] | None = None) -> Iterator[int]:
    """Provide the address of a security descriptor within the block; 0 for the default of the creator's token.

    mask: converts the access mask of each ACE, for an object whose rights are not those that the text is about
        (`rights.event_ace`).
    Errors: SecurityDescriptorError with the position of the fault.
    """
    if sddl is None:
        yield 0
        return
    if len(sddl) > _MAX_LENGTH:
        raise error_for(
            Status.INVALID_SECURITY_DESCR,
            f"The security descriptor has {len(sddl)} characters, at most {_MAX_LENGTH} are allowed. Use fewer ACEs, "
            "or a group.",
        )
    address = _convert(sddl)
    if not address:
        if last_error() == _UNKNOWN_REVISION:
            raise error_for(Status.UNKNOWN_REVISION, f"The security descriptor {sddl!r} has an unknown revision.")
        raise _refused(sddl, find_fault(sddl, _accepts))
    try:
        misshapen = find_misshape(sddl)
        if misshapen is not None:
            raise _refused(sddl, misshapen)
        if mask is None:
            yield address
        else:
            size = advapi32.GetSecurityDescriptorLength(address)
            converted = convert_masks(ctypes.string_at(address, size), mask)
            kept = ctypes.create_string_buffer(converted, len(converted))
            yield ctypes.addressof(kept)
    finally:
        kernel32.LocalFree(address)


def convert_masks(descriptor: bytes, mask: Callable[[int], int]) -> bytes:
    """Return a valid self-relative security descriptor with the access mask of each ACE of its DACL converted."""
    converted = bytearray(descriptor)
    dacl = _HEADER.unpack_from(descriptor)[-1]
    if dacl:
        at = dacl + _ACL.size
        for _ in range(_ACL.unpack_from(descriptor, dacl)[3]):
            kind, flags, size, rights = _ACE.unpack_from(descriptor, at)
            _ACE.pack_into(converted, at, kind, flags, size, mask(rights))
            at += size
    return bytes(converted)


def _convert(sddl: str) -> int:
    """Return the address of the security descriptor, to be freed with LocalFree; 0 if the text is refused."""
    if "\0" in sddl:
        return 0
    address = ctypes.c_size_t()
    fine = advapi32.ConvertStringSecurityDescriptorToSecurityDescriptorW(sddl, _REVISION, ctypes.byref(address), None)
    return address.value if fine else 0


def _accepts(sddl: str) -> bool:
    address = _convert(sddl)
    if address:
        kernel32.LocalFree(address)
    return bool(address)


def _refused(sddl: str, fault: Fault) -> Exception:
    position, problem = fault
    near = sddl[position : position + 12]
    return error_for(
        Status.INVALID_SECURITY_DESCR,
        f"Security descriptor, position {position}{f' ({near!r})' if near else ' (the end)'}: {problem}.",
    )


def sddl_from(binary: bytes | int) -> str:
    """Return a self-relative security descriptor, or one at an address, as SDDL. SecurityDescriptorError for others."""
    if isinstance(binary, bytes):
        kept = ctypes.create_string_buffer(binary, len(binary))
        address = ctypes.addressof(kept)
        sound = _lies_inside(binary) and ntdll.RtlValidRelativeSecurityDescriptor(address, len(binary), 0)
    else:
        address = binary
        sound = address and advapi32.IsValidSecurityDescriptor(address)
    if not sound:
        raise error_for(
            Status.INVALID_SECURITY_DESCR,
            "The bytes are not a self-relative security descriptor. Pass SDDL text, such as D:(A;;GR;;;WD).",
        )
    return _as_text(address)


def _lies_inside(binary: bytes) -> bool:
    """Return whether all offsets of a self-relative security descriptor lie in its bytes."""
    if len(binary) < _HEADER.size:
        return False
    revision, _, control, *offsets = _HEADER.unpack_from(binary)
    return (
        revision == _REVISION
        and control & _SELF_RELATIVE
        and all(not offset or _HEADER.size <= offset <= len(binary) - 8 for offset in offsets)
    )


def _as_text(address: int) -> str:
    text, length = ctypes.c_size_t(), ctypes.c_ulong()
    fine = advapi32.ConvertSecurityDescriptorToStringSecurityDescriptorW(
        address, _REVISION, _OWNER_GROUP_DACL, ctypes.byref(text), ctypes.byref(length)
    )
    if not fine:
        raise error_for(
            Status.INVALID_SECURITY_DESCR,
            f"The security descriptor cannot be written as SDDL (error {last_error()}). Pass SDDL text.",
        )
    try:
        return ctypes.wstring_at(text.value)
    finally:
        kernel32.LocalFree(text.value)


@cache
def user_sid() -> str:
    """Return the SID of this process's user. OSError if Windows refuses."""
    token = HANDLE()
    if not advapi32.OpenProcessToken(CURRENT_PROCESS, _TOKEN_QUERY, ctypes.byref(token)):
        raise win_error(last_error())
    try:
        size = ctypes.c_ulong()
        buffer = (ctypes.c_byte * 256)()  # TOKEN_USER: a pointer to the SID, some flags, the SID itself (68 bytes)
        if not advapi32.GetTokenInformation(token.value, _TOKEN_USER, buffer, len(buffer), ctypes.byref(size)):
            raise win_error(last_error())
        text = ctypes.c_size_t()
        if not advapi32.ConvertSidToStringSidW(ctypes.c_size_t.from_buffer(buffer).value, ctypes.byref(text)):
            raise win_error(last_error())
    finally:
        calls.close_handle(token.value)
    try:
        return ctypes.wstring_at(text.value)
    finally:
        kernel32.LocalFree(text.value)


def sddl_of(handle: int) -> str:
    """Return an object's security as SDDL; empty if the handle does not have READ_CONTROL."""
    size = ctypes.c_ulong()
    advapi32.GetKernelObjectSecurity(handle, _OWNER_GROUP_DACL, None, 0, ctypes.byref(size))
    if not size.value:
        return ""
    buffer = (ctypes.c_byte * size.value)()
    if not advapi32.GetKernelObjectSecurity(handle, _OWNER_GROUP_DACL, buffer, size.value, ctypes.byref(size)):
        return ""
    return _as_text(ctypes.addressof(buffer))
