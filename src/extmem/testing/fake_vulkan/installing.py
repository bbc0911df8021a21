"""How programs come to use a fake: in this process, and in others."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from extmem.api import functions
from extmem.devices import vulkan
from extmem.testing.fake_vulkan._system import own_objects
from extmem.testing.fake_vulkan.gpus import Manners, from_plain, to_plain
from extmem.testing.fake_vulkan.machine import FakeVulkan
from extmem.testing.misuses import EXIT_MISUSE, tell_at_exit

if TYPE_CHECKING:
    from extmem.api import Device

__all__ = ["EXIT_MISUSE", "elsewhere", "install_here", "installed", "open_here", "told_of"]

_here = contextlib.ExitStack()
"""Keeps what `open_here` installed, as long as the process."""
_installed: list[FakeVulkan] = []


@contextlib.contextmanager
def installed(fake: FakeVulkan) -> Iterator[FakeVulkan]:
    """Within the block this process's Vulkan devices are the fake's, for `extmem.open_device` and `extmem.open`.

    Devices that the block opens, it closes; those that `extmem.open` chose are closed at its end.
    """
    with vulkan.loaded_by(lambda: fake.loader), own_objects(), functions.chosen_anew():
        yield fake


def elsewhere(fake: FakeVulkan, *, index: int = 0) -> str:
    """An expression that opens a device of a fake like this one in another process, where `extmem` is installed.

    For `remote=` of the conformance suite, or any child. The other process ends with EXIT_MISUSE if its fake noted a
    misuse. index: which of the GPUs.
    """
    return f"__import__({__name__!r}, fromlist=['open_here']).open_here({told_of(fake, index=index)!r})"


def told_of(fake: FakeVulkan, *, index: int = 0) -> dict[str, Any]:
    """The fake as plain values, for `install_here` and `open_here` in another process."""
    return {"gpus": [to_plain(gpu) for gpu in fake.gpus], "manners": asdict(fake.manners), "index": index}


def open_here(told: dict[str, Any]) -> Device:
    """What `elsewhere` runs: this process's Vulkan is a fake from now on."""
    install_here(told)
    return functions.open_device(kind="vulkan", uuid=told["gpus"][told["index"]]["device_uuid"].hex())


def install_here(told: dict[str, Any]) -> None:
    """This process's Vulkan is a fake from now on."""
    if not _installed:
        fake = FakeVulkan([from_plain(gpu) for gpu in told["gpus"]], Manners(**told["manners"]))
        _installed.append(fake)
        _here.enter_context(vulkan.loaded_by(lambda: fake.loader))
        _here.enter_context(own_objects())
        tell_at_exit(fake.misuses)
