"""`OpenPayloads`: the records that the high-level `open` of a device has imported, by name and by shared object."""

from __future__ import annotations

import weakref
from typing import Any, Final

__all__ = ["OpenPayloads"]

_FEW: Final = 256


class OpenPayloads(dict[object, "weakref.ref[Any]"]):
    """Memory objects by name (str) and by the shared object's number (int). It keeps none of them alive."""

    def __init__(self) -> None:
        super().__init__()
        self.counts: dict[object, int | None] = {}
        """Name → the number in `Manager.names_counter` before it was imported: it refers to the same object while both
        are equal.
        """
        self._most = _FEW

    def remember(self, record: Any, name: str | None, reference: Any = None) -> None:
        """Add a record that the high-level `open` imported. A pinned name refers to the same object as before (B73).

        reference: that of the import; it has the count.
        """
        if name is not None:
            self.counts[name] = None if reference is None else reference.names_count
        keys = (record.object_id,) if name is None else (record.object_id, name)
        record.lookup_keys += keys
        for key in keys:
            self[key] = record.watch
        if len(self) > self._most:  # references to records that have ended
            for key, watch in list(self.items()):
                if watch() is None:
                    self.pop(key, None)
                    self.counts.pop(key, None)
            self._most = 2 * len(self) + _FEW

    def forget(self, record: Any) -> None:
        """Remove a record: `open` does not find it any more."""
        for key in record.lookup_keys:
            if self.get(key) is record.watch:  # a name may refer to another object by now
                self.pop(key, None)
                self.counts.pop(key, None)
