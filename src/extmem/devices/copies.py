"""A copy of a caller's fd for an import: the caller keeps the fd until the whole call has succeeded."""

from __future__ import annotations

from extmem import vk
from extmem.errors import OutOfMemoryError
from extmem.handles.fds import duplicate

__all__ = ["copy_of"]


def copy_of(fd: int) -> int:
    """dup(2), close-on-exec, owned by the caller. Errors: OutOfMemoryError with VK_ERROR_TOO_MANY_OBJECTS."""
    try:
        return duplicate(fd)
    except OSError as error:
        raise OutOfMemoryError(
            f"vkAllocateMemory: fd {fd} cannot be duplicated ({error.strerror}); close some, or raise RLIMIT_NOFILE",
            result=vk.Result.ERROR_TOO_MANY_OBJECTS,
            command="vkAllocateMemory",
        ) from error
