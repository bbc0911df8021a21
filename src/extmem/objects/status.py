"""The NTSTATUS codes of the object manager, with the Win32 error (B14) and the class of extmem for each."""

from __future__ import annotations

from collections.abc import Mapping
from enum import IntEnum
from types import MappingProxyType
from typing import Final

from extmem import errors

__all__ = ["WINERROR", "Refused", "Status", "error_for"]


class Status(IntEnum):
    """NTSTATUS values of ntstatus.h (names without `STATUS_`)."""

    SUCCESS = 0x0000_0000
    INVALID_HANDLE = 0xC000_0008
    INVALID_CID = 0xC000_000B
    INVALID_PARAMETER = 0xC000_000D
    ACCESS_DENIED = 0xC000_0022
    OBJECT_TYPE_MISMATCH = 0xC000_0024
    OBJECT_NAME_INVALID = 0xC000_0033
    OBJECT_NAME_NOT_FOUND = 0xC000_0034
    OBJECT_NAME_COLLISION = 0xC000_0035
    OBJECT_PATH_NOT_FOUND = 0xC000_003A
    OBJECT_PATH_SYNTAX_BAD = 0xC000_003B
    QUOTA_EXCEEDED = 0xC000_0044
    UNKNOWN_REVISION = 0xC000_0058
    INVALID_OWNER = 0xC000_005A
    INVALID_SECURITY_DESCR = 0xC000_0079
    INSUFFICIENT_RESOURCES = 0xC000_009A
    NOT_SAME_OBJECT = 0xC000_01AC
    HANDLE_NOT_CLOSABLE = 0xC000_0235


WINERROR: Final[Mapping[Status, int]] = MappingProxyType(
    {
        Status.SUCCESS: 0,
        Status.INVALID_HANDLE: 6,
        Status.INVALID_CID: 87,
        Status.INVALID_PARAMETER: 87,
        Status.ACCESS_DENIED: 5,
        Status.OBJECT_TYPE_MISMATCH: 6,
        Status.OBJECT_NAME_INVALID: 123,
        Status.OBJECT_NAME_NOT_FOUND: 2,
        Status.OBJECT_NAME_COLLISION: 183,
        Status.OBJECT_PATH_NOT_FOUND: 3,
        Status.OBJECT_PATH_SYNTAX_BAD: 161,
        Status.QUOTA_EXCEEDED: 1816,
        Status.UNKNOWN_REVISION: 1305,
        Status.INVALID_OWNER: 1307,
        Status.INVALID_SECURITY_DESCR: 1338,
        Status.INSUFFICIENT_RESOURCES: 1450,
        Status.NOT_SAME_OBJECT: 1656,
        Status.HANDLE_NOT_CLOSABLE: 6,
    }
)
"""RtlNtStatusToDosError for every status above (B14)."""

_CLASSES: Final[Mapping[Status, type[errors.ObjectManagerError]]] = MappingProxyType(
    {
        Status.INVALID_HANDLE: errors.InvalidHandleError,
        Status.INVALID_CID: errors.InvalidHandleError,
        Status.INVALID_PARAMETER: errors.InvalidHandleError,
        Status.ACCESS_DENIED: errors.AccessDeniedError,
        Status.OBJECT_TYPE_MISMATCH: errors.ObjectTypeError,
        Status.OBJECT_NAME_INVALID: errors.NameInvalidError,
        Status.OBJECT_NAME_NOT_FOUND: errors.NameNotFoundError,
        Status.OBJECT_NAME_COLLISION: errors.NameTakenError,
        Status.OBJECT_PATH_NOT_FOUND: errors.NameNotFoundError,
        Status.OBJECT_PATH_SYNTAX_BAD: errors.NameInvalidError,
        Status.UNKNOWN_REVISION: errors.SecurityDescriptorError,
        Status.INVALID_SECURITY_DESCR: errors.SecurityDescriptorError,
        Status.INVALID_OWNER: errors.SecurityDescriptorError,
        Status.QUOTA_EXCEEDED: errors.QuotaError,
        Status.INSUFFICIENT_RESOURCES: errors.QuotaError,
        Status.HANDLE_NOT_CLOSABLE: errors.InvalidHandleError,
    }
)


class Refused(Exception):
    """A refusal by the model: `status`, and `detail`, full sentences with the values and the remedy.

    Nothing changed.
    """

    def __init__(self, status: Status, detail: str) -> None:
        super().__init__(status, detail)
        self.status = status
        self.detail = detail

    def __str__(self) -> str:
        return f"STATUS_{self.status.name} (0x{self.status:08X}): {self.detail}"


def error_for(status: Status | int, detail: str) -> errors.ObjectManagerError:
    """Return the exception for a refusal, with its `ntstatus` and `winerror`.

    A status without a class of its own gives `ObjectManagerError`. ValueError for a status that is not a failure.
    """
    known = Status(status)
    if known is Status.SUCCESS:
        raise ValueError("STATUS_SUCCESS is no refusal: raise nothing for it")
    cls = _CLASSES.get(known, errors.ObjectManagerError)
    return cls(detail, ntstatus=int(known), winerror=WINERROR[known])
