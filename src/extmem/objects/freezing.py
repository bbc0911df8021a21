"""Frozen payloads: nobody may write to them any more, whatever the rights of handles and the security descriptors say.

How this works. The right to write is taken from what objects can give (`KernelObject.may_give`) and from each import. A
payload with another writer, which is a reference with the right to write, is not frozen: its process may have mapped it
for writing. Whether the payload stays frozen is decided by the seals of its files, which the caller of this module
reads: `set_frozen` tells the model.
"""

from __future__ import annotations

from collections.abc import Collection

from extmem.objects.core import Core
from extmem.objects.entities import Payload

__all__ = ["Freezing"]


class Freezing(Core):
    """Operations on the right to write to payloads."""

    def freeze(self, process: int, references: Collection[int], payloads: Collection[int]) -> list[int]:
        """Freeze payloads, unless others than these references of the process may write to them.

        payloads: those whose bytes are common. Return the pids of the processes that have such other references, and
        then nothing has changed. A pid is 0 for a process of another pid namespace. Refused INVALID_HANDLE.
        """
        owner = self._process(process)
        mine = [self._reference(owner, number) for number in set(references)]
        found = [payload for number in payloads if (payload := self._payloads.get(number)) is not None]
        others: set[int] = set()
        for payload in found:
            own = sum(one.payload is payload and one.writes for one in mine)
            for writer, count in payload.writers.items():
                if writer != owner.id or count > own:
                    others.add(self._processes[writer].pid)
        if not others:
            for payload in found:
                payload.frozen = True
        return sorted(others)

    def set_frozen(self, payload: int, frozen: bool) -> None:
        """Record whether a payload is frozen; nothing happens for one that has ended."""
        found: Payload | None = self._payloads.get(payload)
        if found is not None:
            found.frozen = frozen

    def is_frozen(self, payload: int) -> bool:
        """Return whether a payload is frozen, or about to be."""
        found = self._payloads.get(payload)
        return found is not None and found.frozen
