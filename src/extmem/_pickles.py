"""The functions that pickles of memory, semaphores, fences and handles name.

A pickle contains the name of the function that unpickles it, such as `extmem._pickles.receive_memory`. So the names of
this module and of its functions, and their one argument, are part of the wire format: they never change. A process with
another version of extmem then finds the function, which reports the other version; otherwise unpickling would raise
ModuleNotFoundError, which ends the threads of `Pool` and executors that read results.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from extmem.owning import late_imports

if TYPE_CHECKING:
    from extmem.api import DeviceMemory
    from extmem.api.fence import Fence
    from extmem.api.semaphore import Semaphore
    from extmem.api.slices import MemorySlice
    from extmem.api.timeline import Timeline
    from extmem.handles import FdHandle, KmtHandle, NtHandle

__all__ = [
    "receive_fd_handle",
    "receive_fence",
    "receive_kmt_handle",
    "receive_memory",
    "receive_nt_handle",
    "receive_semaphore",
    "receive_slice",
    "receive_timeline",
    "reduce_memory",
    "reduce_slice",
    "reduce_sync",
]


def receive_memory(ticket: bytes) -> DeviceMemory:
    """Return the memory that the ticket stands for; a closed object if the ticket cannot be claimed."""
    with late_imports():
        from extmem.api import pickling

    return pickling.receive_memory(ticket)


def receive_slice(data: bytes) -> MemorySlice:
    """Return the part of memory that the data stand for; of a closed object if its ticket cannot be claimed."""
    with late_imports():
        from extmem.api import slice_pickling

    return slice_pickling.receive(data)


def receive_nt_handle(ticket: bytes) -> NtHandle:
    """Return the NT handle that the ticket stands for; a closed object if the ticket cannot be claimed."""
    with late_imports():
        from extmem.api import pickling

    return pickling.receive_nt_handle(ticket)


def receive_fd_handle(ticket: bytes) -> FdHandle:
    """Return a new fd for the payload of the ticket; a closed object if the ticket cannot be claimed."""
    with late_imports():
        from extmem.api import pickling

    return pickling.receive_fd_handle(ticket)


def receive_kmt_handle(number: int) -> KmtHandle:
    """Return the KMT handle of this number."""
    with late_imports():
        from extmem.handles import KmtHandle

    return KmtHandle(number)


def receive_semaphore(ticket: bytes) -> Semaphore:
    """Return the binary semaphore that the ticket stands for; a closed object if the ticket cannot be claimed."""
    with late_imports():
        from extmem.api import sync_pickling

    return sync_pickling.receive_semaphore(ticket)


def receive_timeline(ticket: bytes) -> Timeline:
    """Return the timeline that the ticket stands for; a closed object if the ticket cannot be claimed."""
    with late_imports():
        from extmem.api import sync_pickling

    return sync_pickling.receive_timeline(ticket)


def receive_fence(ticket: bytes) -> Fence:
    """Return the fence that the ticket stands for; a closed object if the ticket cannot be claimed."""
    with late_imports():
        from extmem.api import sync_pickling

    return sync_pickling.receive_fence(ticket)


def reduce_sync(thing: Semaphore | Fence) -> tuple[Any, ...]:
    """Return what pickles contain of a semaphore, timeline or fence. (No pickle contains the name of this function.)"""
    with late_imports():
        from extmem.api import sync_pickling

    return sync_pickling.reduce(thing)


def reduce_memory(memory: DeviceMemory) -> tuple[Any, ...]:
    """Return what pickles contain of memory, for its subclasses. (No pickle contains the name of this function.)"""
    with late_imports():
        from extmem.api import pickling

    return pickling.reduce_memory(memory)


def reduce_slice(part: MemorySlice) -> tuple[Any, ...]:
    """Return what pickles contain of a part of memory. (No pickle contains the name of this function.)"""
    with late_imports():
        from extmem.api import slice_pickling

    return slice_pickling.reduce(part)
