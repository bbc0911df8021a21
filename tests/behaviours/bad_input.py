"""Helpers of the tests of bad input. They are not in steps.py, because peers import that without pytest."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import pytest

from extmem.api import Device
from extmem.handles import FdHandle, NtHandle
from extmem.sharing.descriptor import Descriptor
from tests.behaviours.steps import export, import_fd, import_win32


@contextlib.contextmanager
def refused(
    kind: type[BaseException], *parts: str, device: Device | None = None, handle: NtHandle | FdHandle | None = None
) -> Iterator[list[BaseException]]:
    """Check that the block raises this class of error with all `parts` in its message, and consumes no handle."""
    box: list[BaseException] = []
    with pytest.raises(kind) as caught:
        yield box
    box.append(caught.value)
    message = str(caught.value)
    for words in parts:
        assert words in message, f"{words!r} is not in: {message}"
    if device is not None and handle is not None:
        assert not handle.closed
        if isinstance(handle, NtHandle):
            import_win32(device, handle).close()
        else:
            import_fd(device, handle.duplicate()).close()


def described(device: Device, **changes: object) -> Descriptor:
    """Return the descriptor of a correct export, with changes."""
    with export(device) as memory:
        honest = {field: getattr(memory.descriptor, field) for field in memory.descriptor.__struct_fields__}
    return Descriptor(**{**honest, **changes})  # type: ignore[arg-type]  # fields by name
