"""The Vulkan driver of tests that share memory: the installed one, or a scripted one where that shares nothing.

How this works. On Windows a driver without VK_KHR_external_memory_win32 (Wine passes no handles to a driver of Linux)
shares nothing. There the fake driver replaces it, in this process and in all that it starts: these find it through a
folder on their path whose `sitecustomize` installs it. A misuse in any of them fails the test.
"""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import extmem
from extmem import vk
from extmem.testing import fake_vulkan

__all__ = ["SHARES_NOTHING", "stands_in", "stood_in"]

_FOLDER = Path(__file__).parent / "fixtures" / "fake_driver"
_W32 = int(vk.ExternalMemoryHandleTypeFlagBits.OPAQUE_WIN32)
GPU = fake_vulkan.INTEGRATED
"""The fake GPU, whose memory is visible to the host, as that of Mesa's software driver is."""


def stands_in() -> bool:
    """Return whether the fake is needed: this is Windows, and the installed driver shares nothing."""
    if sys.platform != "win32":
        return False
    try:
        with extmem.open_device(kind="vulkan") as device:
            return not device.transfer_capability(_W32).features
    except extmem.UnsupportedError:
        return True


SHARES_NOTHING = pytest.mark.wine_differs("B86: Wine passes no Win32 handles to a driver of Linux", when=stands_in)
"""The mark of tests of the installed driver, whatever it is: where it shares nothing, they fail."""


@contextlib.contextmanager
def stood_in() -> Iterator[fake_vulkan.FakeVulkan]:
    """Within the block Vulkan is a fake, in this process and in every process that is started."""
    fake = fake_vulkan.FakeVulkan([GPU], remembers=False)
    before = {name: os.environ.get(name) for name in ("PYTHONPATH", "EXTMEM_TEST_FAKE")}
    path = [str(_FOLDER), *([before["PYTHONPATH"]] if before["PYTHONPATH"] else [])]
    os.environ["PYTHONPATH"] = os.pathsep.join(path)
    os.environ["EXTMEM_TEST_FAKE"] = repr(fake_vulkan.told_of(fake))
    try:
        with fake_vulkan.installed(fake):
            yield fake
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value
    assert not fake.misuses, [str(misuse) for misuse in fake.misuses]
    assert not fake.alive()
