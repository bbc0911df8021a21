"""Errors of the host device's semaphores and fences."""

from __future__ import annotations

from extmem import vk
from extmem.devices.host.physical import host_identity
from extmem.errors import DriverError, UnsupportedError

__all__ = ["no_win32", "refusal", "signaled_already"]


def refusal(problem: str, noun: str) -> DriverError:
    """Return the error to raise for an import that is refused."""
    command = f"vkImport{noun.capitalize()}FdKHR"
    return DriverError(
        f"{command}: VK_ERROR_INVALID_EXTERNAL_HANDLE: {problem}",
        result=vk.Result.ERROR_INVALID_EXTERNAL_HANDLE,
        command=command,
        devices=[host_identity().device_name],
    )


def no_win32() -> UnsupportedError:
    """Return the error to raise where a HANDLE of a driver is asked for."""
    return UnsupportedError(
        "the host device has no driver that makes HANDLEs; on this system the object manager shares the fd",
        requires_one_of=["the object manager"],
    )


def signaled_already(command: str) -> DriverError:
    """Return the error to raise for the signal of a binary semaphore that is signaled (00067, S15)."""
    return DriverError(
        f"{command}: the binary semaphore is signaled already; a wait must consume that signal first",
        result=vk.Result.ERROR_INITIALIZATION_FAILED,
        command=command,
    )
