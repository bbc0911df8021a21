"""The object manager's model: one class, composed of its subjects.

- `core`: state, and when objects end
- `processes`: their begin and end, and inheritance
- `references`: export, import, release
- `handles`: open, duplicate, close, compare, flags
- `tickets`: references in flight
- `waits`: waits for names
- `keeping`: objects that are kept, and objects that another one has replaced
- `freezing`: payloads that nobody may write to any more
- `restore`: announcing and describing what a process holds
- `snapshot`: reading the state

It is pure: no clock, no randomness of its own, no operating system. The caller serializes the calls.
"""

from __future__ import annotations

from extmem.objects.freezing import Freezing
from extmem.objects.processes import Processes
from extmem.objects.restore import Restoring
from extmem.objects.snapshot import Snapshots
from extmem.objects.waits import Waits

__all__ = ["ObjectManager"]


class ObjectManager(Processes, Waits, Freezing, Restoring, Snapshots):
    """Names, shared objects, handle tables and KMT numbers of one session, for any number of processes.

    Every call takes the id of the calling process from `attach`. It returns, or raises `Refused`, and then nothing has
    changed (except by `duplicate` with `close_source`, B40). Ids of payloads and objects are random
    63-bit numbers.
    """
