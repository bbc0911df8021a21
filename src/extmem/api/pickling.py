"""Pickling memory and handles: how they travel through `multiprocessing`.

How this works. What is pickled is a ticket: random bits that stand for one reference in flight, kept by the object
manager. The receiver's unpickling claims it, once. Nothing leaks when nobody does: a ticket ends with the child process
that it was made for, and after a minute it stops keeping anything alive by itself; so a worker may end before its
result is read. (On Windows nobody but the sender can keep what it sent: there a ticket ends with it.) Unpickling
imports; do not unpickle what a stranger sent.

Unpickling does not raise where a ticket cannot be claimed: see `unclaimed`.

An fd travels as a payload reference and comes out as a new fd. `pickling` registers what is here with `copyreg`.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from extmem import vk
from extmem.api import functions, unclaimed
from extmem.api.device import DeviceMemory
from extmem.core import exporting
from extmem.devices import select
from extmem.errors import ExtmemError, HandleStateError
from extmem.handles import Access, FdHandle, FdPayload, HandleEntry, NtHandle
from extmem.manager import Imported, Manager, Reference, ShareTerms, manager
from extmem.objects import Share
from extmem.owning import copy_fd, out_of_descriptors
from extmem.sharing.kinds import Backing

if TYPE_CHECKING:
    from extmem.core.memory_record import MemoryRecord

__all__ = ["reduce_fd_handle", "reduce_memory", "reduce_nt_handle"]

_OPAQUE_FD = int(vk.ExternalMemoryHandleTypeFlagBits.OPAQUE_FD)


def reduce_memory(memory: DeviceMemory) -> tuple[Callable[[bytes], DeviceMemory], tuple[bytes]]:
    """The receiver gets a memory object of its own, with the rights of this one."""
    with memory.use() as record:
        return _reduce_memory(record)


def _reduce_memory(record: MemoryRecord) -> tuple[Callable[[bytes], DeviceMemory], tuple[bytes]]:
    exporting.share_on_demand(record)
    if not record.references:
        # Shared by fd alone so far: nobody but the receiver learns of this nameless object.
        exporting.publish(record, ShareTerms(Share.NT, None, None))
    owner = record.manager or manager()
    return _receive_memory, (_offered(owner, owner.offer(reference=record.references[0].number)),)


def _receive_memory(ticket: bytes) -> DeviceMemory:
    try:
        return functions.open_claimed(_claimed_import(ticket))
    except (ExtmemError, OSError) as reason:
        return unclaimed.UnclaimedMemory(reason)


def reduce_nt_handle(handle: NtHandle) -> tuple[Callable[[bytes], NtHandle], tuple[bytes]]:
    """`NtHandle.__reduce__`: the receiver gets a handle of its own, with the rights of this one."""
    owner = handle.table
    if not isinstance(owner, Manager):
        raise HandleStateError(
            f"{handle!r} is in a handle table that cannot pass handles on; import it and pass the memory"
        )
    with owner.lock:
        return _receive_nt_handle, (_offered(owner, owner.offer(handle=int(handle))),)


def _receive_nt_handle(ticket: bytes) -> NtHandle:
    owner = manager()
    reference, entry = Reference(owner), HandleEntry(owner)
    try:
        value = owner.claim(ticket, reference, entry)
        if isinstance(value, int):
            return NtHandle(entry, owner)
        value.payload.close()
        reference.give_back()
        raise HandleStateError("the ticket stands for memory, not for a handle")
    except (ExtmemError, OSError) as reason:
        return unclaimed.UnclaimedHandle(reason)


def reduce_fd_handle(handle: FdHandle) -> tuple[Callable[[bytes], FdHandle], tuple[bytes]]:
    """`FdHandle.__reduce__`: the receiver gets a new fd on the same payload."""
    owner = manager()
    payload = handle.payload
    reference = Reference(owner)
    with handle.use() as owned:
        if payload is None:
            found = select.choose(kind="host").examine_fd(owned.fd, _OPAQUE_FD)
            if not found.valid:
                raise HandleStateError(f"{handle!r} cannot be passed on: {found.problem}")
            payload = FdPayload(found.descriptor, int(Backing.HOST_FILE), 0, found.writable)
        owner.export(
            (owned.fd,),
            payload.descriptor,
            share=Share.NT,
            name=None,
            access=int(Access.ALL),
            sddl=None,
            inherit=False,
            backing=Backing(payload.backing),
            identity=payload.identity,
            reference=reference,
        )
        try:
            ticket = owner.offer(reference=reference.number)
        finally:
            reference.give_back()
    return _receive_fd_handle, (_offered(owner, ticket),)


def _receive_fd_handle(ticket: bytes) -> FdHandle:
    try:
        return _claimed_fd(ticket)
    except (ExtmemError, OSError) as reason:
        return unclaimed.UnclaimedFd(reason)


def _claimed_fd(ticket: bytes) -> FdHandle:
    imported = _claimed_import(ticket)
    try:
        payload = None
        if imported.backing != Backing.HOST_FILE:
            payload = FdPayload(imported.descriptor, imported.backing, imported.identity, imported.payload.writable)
        try:
            copy = copy_fd(imported.payload.fd)
        except OSError as error:
            raise out_of_descriptors(error, "dup") from None
        return FdHandle(copy, payload)
    finally:
        imported.give_back()


def _claimed_import(ticket: bytes) -> Imported:
    owner = manager()
    reference, entry = Reference(owner), HandleEntry(owner)
    claimed = owner.claim(ticket, reference, entry)
    if isinstance(claimed, int):
        NtHandle(entry, owner).close()
        raise HandleStateError("the ticket stands for an NT handle, not for memory")
    return claimed


def _offered(owner: Manager, ticket: bytes) -> bytes:
    """Bind the ticket to the child that `multiprocessing` is starting, if it is."""
    context: Any = sys.modules.get("multiprocessing.context")
    child = context.get_spawning_popen() if context is not None else None
    if child is not None:
        owner.bind_offer_to(ticket, child)
    return ticket
