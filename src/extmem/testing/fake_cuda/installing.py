"""Making this process, or another one, use a fake driver."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from extmem.api import functions
from extmem.core import shared_devices
from extmem.devices import cuda
from extmem.testing.fake_cuda.machine import FakeCuda
from extmem.testing.fake_cuda.objects import Gpu
from extmem.testing.fake_cuda.sharing import kernel_objects
from extmem.testing.misuses import EXIT_MISUSE, tell_at_exit

if TYPE_CHECKING:
    from extmem.api import Device

__all__ = ["EXIT_MISUSE", "elsewhere", "installed", "open_here"]

_here = contextlib.ExitStack()
"""Keeps what `open_here` installed, until the process ends."""
_installed: list[FakeCuda] = []


@contextlib.contextmanager
def installed(fake: FakeCuda) -> Iterator[FakeCuda]:
    """Within the block this process's CUDA devices are the fake's, for `extmem.open_device` and `extmem.open`.

    The block must close the devices that it opens; those that `extmem.open` chose are closed at its end.
    """
    with cuda.replaced_by(lambda: fake.module), kernel_objects(), shared_devices.fresh_devices():
        yield fake


def elsewhere(fake: FakeCuda, *, index: int = 0) -> str:
    """Return an expression that opens a device of an equal fake in another process, where `extmem` is installed.

    It is for `remote=` of the conformance suite, or any child. The other process ends with EXIT_MISUSE if its fake
    noted a misuse. index: which of the GPUs.
    """
    values = {"gpus": [asdict(gpu) for gpu in fake.gpus], "index": index}
    return f"__import__({__name__!r}, fromlist=['open_here']).open_here({values!r})"


def open_here(values: dict[str, Any]) -> Device:
    """Install a fake for the rest of this process and open a device of it: what the text of `elsewhere` calls."""
    if not _installed:
        fake = FakeCuda([Gpu(**gpu) for gpu in values["gpus"]])
        _installed.append(fake)
        _here.enter_context(cuda.replaced_by(lambda: fake.module))
        _here.enter_context(kernel_objects())
        tell_at_exit(fake.misuses)
    return functions.open_device(kind="cuda", uuid=values["gpus"][values["index"]]["uuid"].hex())
