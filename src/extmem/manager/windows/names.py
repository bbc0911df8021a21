r"""Names on Windows: from the name that a program states to the paths of kernel objects. Pure.

::

    extmem.open("Camera")  ->  \Sessions\1\BaseNamedObjects\extmem.CAMERA          the payload, a section
                               \Sessions\1\BaseNamedObjects\extmem.CAMERA.extmem   its companion, the description
    KMT number 0x40001f42  ->  \Sessions\1\BaseNamedObjects\extmem.kmt.40001f42    and the same with .extmem
    no name                ->  \Sessions\1\BaseNamedObjects\extmem.sync.<random>    a binary semaphore or fence, with
                                                                                .extmem its companion
    a companion page       ->  \Sessions\1\BaseNamedObjects\extmem.page.<random>    a section
    the locks of a channel ->  \Sessions\1\BaseNamedObjects\extmem.channel.<random>  a directory, with names in it
    who waits for "Camera" ->  \Sessions\1\BaseNamedObjects\extmem.CAMERA.wait.extmem    an event

How this works. Names of sections are case-sensitive and names of GPU objects are not (B5, B6), so the kernel's name is
the folded one, and the creator's spelling is in the description. The prefix separates these names from other programs'
events, mutexes and mappings. A folded name does not contain a lower-case ASCII letter, so it cannot end in `.extmem` or
begin with `kmt.`, `sync.`, `page.` or `channel.`.
"""

from __future__ import annotations

from extmem.objects import NameKey, Refused, error_for, resolve_name, session_directory

__all__ = [
    "channel_directory",
    "companion_of",
    "find_number",
    "hidden_path",
    "is_hidden",
    "is_ours",
    "is_sync_event",
    "kmt_path",
    "page_path",
    "payload_path",
    "resolve",
    "session_directory",
    "waiters_of",
]

_PREFIX = "extmem."
_SUFFIX = ".extmem"
_KMT = _PREFIX + "kmt."
_SYNC, _PAGE = _PREFIX + "sync.", _PREFIX + "page."
_TICKET = _PREFIX + "ticket."
_CHANNEL = _PREFIX + "channel."


def resolve(name: str, session: int) -> NameKey:
    """Resolve a program's name. Errors: NameInvalidError, NameNotFoundError, as `objects.resolve_name`."""
    try:
        return resolve_name(name, session)
    except Refused as refused:
        raise error_for(refused.status, refused.detail) from None


def payload_path(key: NameKey) -> str:
    """Return the kernel object's full path for a resolved name."""
    session, _, folded = key.key.partition("\\")
    return f"{session_directory(int(session))}{_PREFIX}{folded}"


def companion_of(path: str) -> str:
    """Return the full path of the companion of the payload at `path`."""
    return path + _SUFFIX


def waiters_of(path: str) -> str:
    """Return the full path of the event of those who wait for the payload at `path`."""
    return f"{path}.wait{_SUFFIX}"


def kmt_path(number: int, session: int) -> str:
    """Return the full path of the payload with this KMT number."""
    return f"{session_directory(session)}{_KMT}{number:08x}"


def find_number(path: str) -> int:
    """Return the KMT number in a kernel object's path; 0 for other paths."""
    leaf = path.rpartition("\\")[2]
    digits = leaf.removeprefix(_KMT)
    return int(digits, 16) if len(digits) == 8 and leaf.startswith(_KMT) and not digits.strip("0123456789abcdef") else 0


def hidden_path(session: int, secret: bytes) -> str:
    """Return the full path of a binary semaphore or fence that has no name of a program.

    The kernel keeps no description with it; its path leads to its companion.
    """
    return f"{session_directory(session)}{_SYNC}{secret.hex()}"


def page_path(session: int, secret: bytes) -> str:
    """Return the full path of a companion page."""
    return f"{session_directory(session)}{_PAGE}{secret.hex()}"


def channel_directory(session: int, identity: bytes) -> str:
    """Return the full path of the directory of a channel's locks."""
    return f"{session_directory(session)}{_CHANNEL}{identity.hex()}"


def is_hidden(path: str) -> bool:
    """Return whether a path is one of `hidden_path`."""
    return path.rpartition("\\")[2].startswith(_SYNC)


def is_sync_event(path: str) -> bool:
    """Return whether an event or a semaphore of the kernel at this path is a fence or a semaphore of extmem."""
    return is_ours(path) and not path.rpartition("\\")[2].startswith(_TICKET)


def is_ours(path: str) -> bool:
    """Return whether a path is that of a payload of extmem, and not of a companion."""
    leaf = path.rpartition("\\")[2]
    return leaf.startswith(_PREFIX) and not leaf.endswith(_SUFFIX)
