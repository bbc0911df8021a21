"""Making this process, or another one, use a fake driver."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from extmem.api import functions
from extmem.core import shared_devices
from extmem.devices import vulkan
from extmem.testing.fake_vulkan._system import own_objects
from extmem.testing.fake_vulkan.gpus import Manners, from_plain, to_plain
from extmem.testing.fake_vulkan.machine import FakeVulkan
from extmem.testing.misuses import EXIT_MISUSE, tell_at_exit

if TYPE_CHECKING:
    from extmem.api import Device

__all__ = ["EXIT_MISUSE", "elsewhere", "install_here", "installed", "open_here", "told_of"]

_here = contextlib.ExitStack()
"""Keeps what `open_here` installed, until the process ends."""
_installed: list[FakeVulkan] = []


@contextlib.contextmanager
def installed(fake: FakeVulkan) -> Iterator[FakeVulkan]:
    """Within the block this process's Vulkan devices are the fake's, for `extmem.open_device` and `extmem.open`.

    The block must close the devices that it opens; those that `extmem.open` chose are closed at its end.
    """
    with vulkan.loaded_by(lambda: fake.loader), own_objects(), shared_devices.fresh_devices():
        yield fake


def elsewhere(fake: FakeVulkan, *, index: int = 0) -> str:
    """Return an expression that opens a device of an equal fake in another process, where `extmem` is installed.

    It is for `remote=` of the conformance suite, or any child. The other process ends with EXIT_MISUSE if its fake
    noted a misuse. index: which of the GPUs.
    """
    return f"__import__({__name__!r}, fromlist=['open_here']).open_here({told_of(fake, index=index)!r})"


def told_of(fake: FakeVulkan, *, index: int = 0) -> dict[str, Any]:
    """Return the fake as plain values, for `install_here` and `open_here` in another process."""
    return {"gpus": [to_plain(gpu) for gpu in fake.gpus], "manners": asdict(fake.manners), "index": index}


def open_here(values: dict[str, Any]) -> Device:
    """Install a fake for the rest of this process and open a device of it: what the text of `elsewhere` calls."""
    install_here(values)
    return functions.open_device(kind="vulkan", uuid=values["gpus"][values["index"]]["device_uuid"].hex())


def install_here(values: dict[str, Any]) -> None:
    """Install a fake for the rest of this process."""
    if not _installed:
        fake = FakeVulkan([from_plain(gpu) for gpu in values["gpus"]], Manners(**values["manners"]))
        _installed.append(fake)
        _here.enter_context(vulkan.loaded_by(lambda: fake.loader))
        _here.enter_context(own_objects())
        tell_at_exit(fake.misuses)
