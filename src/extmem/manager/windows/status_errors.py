"""The library's errors for statuses of Windows, with the values and the remedy."""

from __future__ import annotations

from extmem.errors import (
    VK_ERROR_OUT_OF_DEVICE_MEMORY,
    AccessDeniedError,
    ObjectManagerError,
    OutOfMemoryError,
    UnsupportedError,
)
from extmem.handles._win32 import calls
from extmem.handles._win32.tables import ntdll
from extmem.manager.windows import names
from extmem.objects import OBJECT_TYPES, OPENED_BY, NameKey, Status, error_for, no_entry
from extmem.sharing.kinds import ObjectKind

__all__ = [
    "bad_handle",
    "check_kind",
    "denied",
    "duplicate",
    "not_one_handle",
    "nothing_named",
    "of_creating",
    "of_handle",
    "of_opening",
    "of_process",
    "other",
    "out_of_memory",
    "raise_shortage",
    "wrong_kind",
]

_NO_MEMORY = (0xC000_0017, 0xC000_009A, 0xC000_012D, 0xC000_0040, 0xC000_0044, 0xC000_00A1)
# NO_MEMORY, INSUFFICIENT_RESOURCES, COMMITMENT_LIMIT, SECTION_TOO_BIG, QUOTA_EXCEEDED, WORKING_SET_QUOTA
_PRIVILEGE_NOT_HELD = 0xC000_0061


def other(error: calls.StatusError, what: str) -> ObjectManagerError:
    """Return the error for any status: its class, or ObjectManagerError with the numbers if it is not in the table.

    what: a sentence that states what failed, with the values.
    """
    try:
        return error_for(Status(error.status), what)
    except ValueError:
        winerror = ntdll.RtlNtStatusToDosError(error.status - (1 << 32) if error.status & 0x8000_0000 else error.status)
        text = f"{what} Windows answers {error.status:#010x} (error {winerror})."
        if error.status == _PRIVILEGE_NOT_HELD:
            return AccessDeniedError(text, ntstatus=error.status, winerror=winerror)
        return ObjectManagerError(text, ntstatus=error.status, winerror=winerror)


def out_of_memory(error: calls.StatusError, command: str, what: str) -> Exception | None:
    """Return OutOfMemoryError for a status that means lack of memory; None for any other."""
    if error.status not in _NO_MEMORY:
        return None
    return OutOfMemoryError(
        f"{command}: no room for {what} ({error.status:#010x}): the machine's memory and paging file, or this "
        "process's or job's quota, are used up; free some, ask for less, or let the paging file grow",
        result=VK_ERROR_OUT_OF_DEVICE_MEMORY,
        command=command,
    )


def raise_shortage(error: calls.StatusError, command: str, what: str) -> None:
    """Raise OutOfMemoryError for a status that means lack of memory; for a caller that passes over any other."""
    lacking = out_of_memory(error, command, what)
    if lacking is not None:
        raise lacking from None


def of_creating(error: calls.StatusError, name: str | None, path: str) -> Exception:
    """Return the error for a section that could not be created under a name."""
    status = error.status
    if status == Status.OBJECT_NAME_COLLISION:
        taken = f"The name {name!r}" if name is not None else "The KMT number"
        return error_for(
            status,
            f"{taken} is taken: {path} exists, and an export never joins or replaces an existing object. "
            "Choose another name, import that one, or have its holders close it.",
        )
    if status == Status.OBJECT_TYPE_MISMATCH:
        return error_for(
            status, f"The name {name!r} is taken by an object of another type: {path}. Choose another name."
        )
    if status == Status.OBJECT_PATH_NOT_FOUND:
        return error_for(
            status, f"The name {name!r} leads through a directory that does not exist: {path}. Use a name without it."
        )
    if status in (Status.ACCESS_DENIED, _PRIVILEGE_NOT_HELD):
        return _denied_creation(status, name, path)
    if status == Status.INVALID_OWNER:
        return error_for(status, "The security descriptor names an owner (O:) that this process may not set. Omit O:.")
    return other(error, f"The section {path or '(unnamed)'} cannot be created.")


def _denied_creation(status: int, name: str | None, path: str) -> AccessDeniedError:
    hint = (
        "names under Global\\ require the privilege SeCreateGlobalPrivilege, which services and administrators have: "
        "run as one, or use a name of the session"
        if path.startswith("\\BaseNamedObjects\\")
        else "this process may not create objects in the session's directory (a sandbox?); run it outside"
    )
    return AccessDeniedError(
        f"The name {name!r} cannot be created ({path}): {hint}.",
        ntstatus=status,
        winerror=5 if status == Status.ACCESS_DENIED else 1314,
    )


def of_opening(
    error: calls.StatusError, name: str, path: str, desired: int, kind: ObjectKind = ObjectKind.MEMORY
) -> ObjectManagerError:
    """Return the error for a name that could not be opened with the mapped rights `desired`."""
    status = error.status
    if status in (Status.OBJECT_NAME_NOT_FOUND, Status.OBJECT_PATH_NOT_FOUND):
        return error_for(
            status,
            f"No object has the name {name!r} now (Windows looked for {path}). A name lives as long as a handle or "
            "reference: check the spelling and the session, and that the exporter still runs.",
        )
    if status == Status.OBJECT_TYPE_MISMATCH:
        return error_for(
            status,
            f"The name {name!r} belongs to an object of another type: {path} is not {OBJECT_TYPES[kind].noun}. Use "
            "another name.",
        )
    if status == Status.ACCESS_DENIED:
        return denied(desired, f"opening {name!r}", kind)
    return other(error, f"The name {name!r} ({path}) cannot be opened.")


def nothing_named(name: str, key: NameKey) -> ObjectManagerError:
    """Return the error for a name that neither a host payload nor a GPU's memory has."""
    where = f"{names.payload_path(key)}, and for a GPU's memory at {key.display}"
    return of_opening(calls.StatusError(Status.OBJECT_NAME_NOT_FOUND), name, where, 0)


def not_one_handle(count: int) -> UnsupportedError:
    """Return the error for a payload of a list of handles."""
    return UnsupportedError(
        f"a payload on Windows is one kernel object, this one has {count} handles; share each as a payload of its own",
        requires_one_of=["one handle for each payload"],
    )


def check_kind(what: str, found: ObjectKind, needed: ObjectKind, *, pending: bool) -> None:
    """Refuse an object of another kind, and memory whose exporter has not shared it yet. what: a name, a handle, …

    Errors: NameNotFoundError, ObjectTypeError.
    """
    if pending:
        raise error_for(
            Status.OBJECT_NAME_NOT_FOUND,
            f"{what} finds memory whose exporter is still writing its contents. Open it with a timeout, which waits.",
        )
    if found != needed:
        raise wrong_kind(what, found, needed)


def wrong_kind(what: str, found: ObjectKind, needed: ObjectKind) -> ObjectManagerError:
    """Return the error for an object of another kind than the needed one. what: a name, a handle, …"""
    return error_for(
        Status.OBJECT_TYPE_MISMATCH,
        f"{what[0].upper()}{what[1:]}: this is {OBJECT_TYPES[found].noun} ({OBJECT_TYPES[found].name}), and "
        f"{OBJECT_TYPES[needed].noun} is needed. Import it as {OBJECT_TYPES[found].noun} ({OPENED_BY[found]}), or "
        "pass another.",
    )


def denied(desired: int, what: str, kind: ObjectKind = ObjectKind.MEMORY) -> ObjectManagerError:
    """Return the error for denied access, also to a request for no access (B18)."""
    if not desired:
        return error_for(
            Status.ACCESS_DENIED,
            "Opening with no access (0) is refused, even for the owner. "
            "Request 0x80000000 to read, or 0x80000001 to read and write.",
        )
    return error_for(
        Status.ACCESS_DENIED,
        f"{what[0].upper()}{what[1:]} with {OBJECT_TYPES[kind].describe(desired)} is refused: the object's security "
        "does not allow this user all of it. Request less, or let the exporter allow it in its security descriptor.",
    )


def bad_handle(value: int) -> ObjectManagerError:
    """Return the error for a value that is not in the handle table."""
    if value < 0 or value > 0xFFFF_FFFF:
        return error_for(
            Status.INVALID_HANDLE,
            f"{value:#x} is not a handle to shared memory: negative values are pseudo handles (-1 is this process, -2 "
            "this thread), and handles have 32 bits. Pass the value that the exporter's call returned.",
        )
    return error_for(Status.INVALID_HANDLE, no_entry(value))


def of_handle(error: calls.StatusError, value: int) -> ObjectManagerError:
    """Return the error for a call that failed on a handle."""
    if error.status == Status.INVALID_HANDLE:
        return bad_handle(value)
    if error.status == Status.HANDLE_NOT_CLOSABLE:
        return error_for(
            error.status, f"The handle {value:#x} is protected from close. Clear HANDLE_FLAG_PROTECT_FROM_CLOSE first."
        )
    return other(error, f"The handle {value:#x} is refused.")


def duplicate(value: int, desired: int = 0, flags: int = 0, options: int = 0) -> int:
    """`calls.duplicate` within this process, with its refusals as the library's errors."""
    try:
        return calls.duplicate(value, desired, flags, options)
    except calls.StatusError as error:
        raise of_handle(error, value) from None


def of_process(error: calls.StatusError, pid: int, right: str = "PROCESS_DUP_HANDLE") -> ObjectManagerError:
    """Return the error for a process that could not be opened."""
    if error.status in (Status.INVALID_CID, Status.INVALID_PARAMETER):
        return error_for(Status.INVALID_CID, f"Process {pid} does not exist now. Pass the pid of a running process.")
    if error.status == Status.ACCESS_DENIED:
        return error_for(
            error.status,
            f"This process may not open process {pid} ({right} is refused): it belongs to another user, or runs with "
            "higher integrity. Let that process open the memory by name, or duplicate into this one.",
        )
    return other(error, f"Process {pid} cannot be opened ({right}).")
