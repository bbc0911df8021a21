"""What the tests of bad input share. Not in steps.py, which peers import: they have no need of pytest."""

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
    kind: type[BaseException], *said: str, device: Device | None = None, handle: NtHandle | FdHandle | None = None
) -> Iterator[list[BaseException]]:
    """The block raises exactly this kind, its message has all of `said`, and the handle still imports."""
    box: list[BaseException] = []
    with pytest.raises(kind) as caught:
        yield box
    box.append(caught.value)
    message = str(caught.value)
    for words in said:
        assert words in message, f"{words!r} is not in: {message}"
    if device is not None and handle is not None:
        assert not handle.closed
        if isinstance(handle, NtHandle):
            import_win32(device, handle).close()
        else:
            import_fd(device, handle.duplicate()).close()


def described(device: Device, **changes: object) -> Descriptor:
    """The descriptor of an honest export, with changes."""
    with export(device) as memory:
        honest = {field: getattr(memory.descriptor, field) for field in memory.descriptor.__struct_fields__}
    return Descriptor(**{**honest, **changes})  # type: ignore[arg-type]  # fields by name
