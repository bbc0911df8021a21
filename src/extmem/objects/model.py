"""The object manager's model: one class out of its subjects.

- `core`: state, processes, and when things end
- `memories`: export, import, free
- `handles`: open, duplicate, close, compare, flags
- `tickets`: references in flight
- `restore`: announcing and describing what a process holds
- `snapshot`: telling the state

It is pure: no clock, no randomness of its own, no operating system. Whoever runs it serializes the calls.
"""

from __future__ import annotations

from extmem.objects.handles import Handles
from extmem.objects.restore import Restoring
from extmem.objects.snapshot import Snapshots

__all__ = ["ObjectManager"]


class ObjectManager(Handles, Restoring, Snapshots):
    """Names, shared objects, handle tables and KMT numbers of one session, for any number of processes.

    Every call names the calling process by the id from `attach`, and answers or raises `Refused`, in which case nothing
    has changed (but for `duplicate` with `close_source`, B40, and `restore`). Ids of payloads and objects are random
    63-bit numbers.
    """
