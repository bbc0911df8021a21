"""Pickling of memory and handles, so that they can be sent through `multiprocessing`.

How this works. The pickle contains a ticket: random bits that identify one reference in flight, which the object
manager holds. Unpickling in the receiver claims the ticket, once. A ticket that is not claimed leaks nothing: it ends
with the child process that it was made for, and after a minute it no longer keeps anything alive. So a worker process
may end before its result is read. (On Windows only the sender can hold the reference, so a ticket ends with the
sender.) Unpickling imports memory; do not unpickle data from untrusted sources.

Unpickling does not raise if a ticket cannot be claimed: see `unclaimed`.

A pickle contains the name of a function of `extmem._pickles`, which calls the one of this module.

An fd is sent as a reference to its payload, and received as a new fd. `pickle_registry` registers these functions with
`copyreg`.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

import msgspec

from extmem import _pickles
from extmem.api import functions, unclaimed
from extmem.api.device import DeviceMemory
from extmem.core import exporting
from extmem.core.naming import CHANNEL_PARTS
from extmem.devices import select
from extmem.errors import ExtmemError, HandleStateError
from extmem.handles import Access, FdHandle, HandleEntry, NtHandle
from extmem.handles.fd_payload import FdPayload
from extmem.manager import Imported, Manager, Reference, manager
from extmem.objects import Share
from extmem.owning import copy_fd, out_of_descriptors
from extmem.sharing.kinds import Backing, ObjectKind
from extmem.vk.handle_types import OPAQUE_FD

__all__ = [
    "bound_ticket",
    "claimed_import",
    "receive_fd_handle",
    "receive_memory",
    "receive_nt_handle",
    "reduce_fd_handle",
    "reduce_memory",
    "reduce_nt_handle",
]


def reduce_memory(memory: DeviceMemory) -> tuple[Callable[[bytes], DeviceMemory], tuple[bytes]]:
    """Reduce memory for pickling. The receiver gets another memory object with the same rights.

    Errors: TypeError for memory of a channel's slot.
    """
    with memory.use() as record:
        if (record.name or "").startswith(CHANNEL_PARTS):
            raise TypeError(
                "the memory of a frame cannot be pickled: who receives it would not hold the slot, which the writer "
                "overwrites. Pickle the channel, whose readers get the frames, or a copy: frame.numpy().copy()"
            )
        number = exporting.sent_reference(record)
        owner = record.manager or manager()
        return _pickles.receive_memory, (bound_ticket(owner, owner.offer(reference=number)),)


def receive_memory(ticket: bytes) -> DeviceMemory:
    """Claim the ticket: see `extmem._pickles`, by which pickles call this."""
    try:
        return functions.open_claimed(claimed_import(ticket))
    except (ExtmemError, OSError) as reason:
        return unclaimed.UnclaimedMemory(reason)


def reduce_nt_handle(handle: NtHandle) -> tuple[Callable[[bytes], NtHandle], tuple[bytes]]:
    """Reduce an NT handle for pickling. The receiver gets another handle with the same rights."""
    owner = handle.table
    if not isinstance(owner, Manager):
        raise HandleStateError(
            f"{handle!r} is in a handle table that cannot send handles; import the handle and send the memory"
        )
    with owner.lock:
        return _pickles.receive_nt_handle, (bound_ticket(owner, owner.offer(handle=int(handle))),)


def receive_nt_handle(ticket: bytes) -> NtHandle:
    """See `receive_memory`."""
    owner = manager()
    reference, entry = Reference(owner), HandleEntry(owner)
    try:
        value = owner.claim(ticket, reference, entry)
        if isinstance(value, int):
            return NtHandle(entry, owner)
        value.payload.close()
        reference.give_back()
        raise HandleStateError("the ticket refers to memory, not to a handle; unpickle it as the sender pickled it")
    except (ExtmemError, OSError) as reason:
        return unclaimed.UnclaimedHandle(reason)


def reduce_fd_handle(handle: FdHandle) -> tuple[Callable[[bytes], FdHandle], tuple[bytes]]:
    """Reduce an fd handle for pickling. The receiver gets a new fd for the same payload."""
    owner = manager()
    payload = handle.payload
    reference = Reference(owner)
    with handle.use() as owned:
        if payload is None:
            facts = select.choose(kind="host").examine_fd(owned.fd, OPAQUE_FD)
            if not facts.valid:
                raise HandleStateError(f"{handle!r} cannot be pickled: {facts.problem}")
            payload = FdPayload(facts.descriptor, int(Backing.HOST_FILE), 0, facts.writable)
        owner.export(
            (owned.fd,),
            payload.descriptor,
            share=Share.NT,
            name=None,
            access=int(Access.ALL),
            sddl=None,
            inherit=False,
            object_kind=_kind_of(payload.descriptor),
            backing=Backing(payload.backing),
            identity=payload.identity,
            reference=reference,
        )
        try:
            ticket = owner.offer(reference=reference.number)
        finally:
            reference.give_back()
    return _pickles.receive_fd_handle, (bound_ticket(owner, ticket),)


def receive_fd_handle(ticket: bytes) -> FdHandle:
    """See `receive_memory`."""
    try:
        return _claimed_fd(ticket)
    except (ExtmemError, OSError) as reason:
        return unclaimed.UnclaimedFd(reason)


def _claimed_fd(ticket: bytes) -> FdHandle:
    imported = claimed_import(ticket)
    try:
        payload = None
        if imported.backing != Backing.HOST_FILE or imported.object_kind != ObjectKind.MEMORY:
            payload = FdPayload(imported.descriptor, imported.backing, imported.identity, imported.payload.writable)
        try:
            copy = copy_fd(imported.payload.fd)
        except OSError as error:
            raise out_of_descriptors(error, "dup") from None
        return FdHandle(copy, payload)
    finally:
        imported.give_back()


def _kind_of(descriptor: bytes) -> ObjectKind:
    """Return the kind of object that a descriptor describes: the first element of its header."""
    try:
        return ObjectKind(msgspec.msgpack.decode(descriptor)[1][0])
    except (msgspec.DecodeError, LookupError, TypeError, ValueError):
        return ObjectKind.MEMORY


def claimed_import(ticket: bytes) -> Imported:
    """Claim a ticket of memory, a semaphore or a fence. Errors: HandleStateError for one of a handle."""
    owner = manager()
    reference, entry = Reference(owner), HandleEntry(owner)
    claimed = owner.claim(ticket, reference, entry)
    if isinstance(claimed, int):
        NtHandle(entry, owner).close()
        raise HandleStateError("the ticket refers to an NT handle, not to memory; unpickle it as the sender pickled it")
    return claimed


def bound_ticket(owner: Manager, ticket: bytes) -> bytes:
    """Bind the ticket to the child process that `multiprocessing` is starting, if there is one. Return the ticket."""
    context: Any = sys.modules.get("multiprocessing.context")
    child = context.get_spawning_popen() if context is not None else None
    if child is not None:
        owner.bind_offer_to(ticket, child)
    return ticket
