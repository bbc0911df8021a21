"""References to semaphores and fences for other processes (tickets), and for other devices of this process."""

from __future__ import annotations

from typing import TYPE_CHECKING

from extmem.core import sync_publishing
from extmem.core.sync_state import sync_states
from extmem.manager import Manager, ShareTerms, held_number, manager
from extmem.objects import Share

if TYPE_CHECKING:
    from extmem.core.sync_record import SyncRecord

__all__ = ["offered"]


def offered(record: SyncRecord) -> tuple[Manager, bytes]:
    """Return a ticket for the payload of an object that is in use, and its manager. It has the rights of the object.

    Errors: UnsupportedError for an object that its device cannot export.
    """
    payload = sync_publishing.share_on_demand(record)
    number = held_number(payload.references)
    if not number:
        # It was shared by fd only. The ticket alone refers to the unnamed object that is published here.
        with record.device.creation_lock:
            number = held_number(payload.references)
            if not number:
                sync_publishing.publish(record, payload, ShareTerms(Share.NT, None, None))
                number = held_number(payload.references)
    sync_states().shared(record.state)
    owner = payload.manager or manager()
    return owner, owner.offer(reference=number)
