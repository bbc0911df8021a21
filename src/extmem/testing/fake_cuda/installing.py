"""How programs come to use a fake: in this process, and in others."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from extmem.api import functions
from extmem.devices import cuda
from extmem.testing.fake_cuda.machine import FakeCuda
from extmem.testing.fake_cuda.sharing import kernel_objects
from extmem.testing.fake_cuda.things import Gpu
from extmem.testing.misuses import EXIT_MISUSE, tell_at_exit

if TYPE_CHECKING:
    from extmem.api import Device

__all__ = ["EXIT_MISUSE", "elsewhere", "installed", "open_here"]

_here = contextlib.ExitStack()
"""Keeps what `open_here` installed, as long as the process."""
_installed: list[FakeCuda] = []


@contextlib.contextmanager
def installed(fake: FakeCuda) -> Iterator[FakeCuda]:
    """Within the block this process's CUDA devices are the fake's, for `extmem.open_device` and `extmem.open`.

    Devices that the block opens, it closes; those that `extmem.open` chose are closed at its end.
    """
    with cuda.replaced_by(lambda: fake.module), kernel_objects(), functions.chosen_anew():
        yield fake


def elsewhere(fake: FakeCuda, *, index: int = 0) -> str:
    """An expression that opens a device of a fake like this one in another process, where `extmem` is installed.

    For `remote=` of the conformance suite, or any child. The other process ends with EXIT_MISUSE if its fake noted a
    misuse. index: which of the GPUs.
    """
    told = {"gpus": [asdict(gpu) for gpu in fake.gpus], "index": index}
    return f"__import__({__name__!r}, fromlist=['open_here']).open_here({told!r})"


def open_here(told: dict[str, Any]) -> Device:
    """What `elsewhere` runs: this process's CUDA is a fake from now on."""
    if not _installed:
        fake = FakeCuda([Gpu(**gpu) for gpu in told["gpus"]])
        _installed.append(fake)
        _here.enter_context(cuda.replaced_by(lambda: fake.module))
        _here.enter_context(kernel_objects())
        tell_at_exit(fake.misuses)
    return functions.open_device(kind="cuda", uuid=told["gpus"][told["index"]]["uuid"].hex())
