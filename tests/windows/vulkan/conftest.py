"""A scripted driver with VK_KHR_external_memory_win32 for the Vulkan device, which records its calls."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

import extmem
from extmem.api import Device
from extmem.testing import fake_vulkan


@pytest.fixture
def fake(nothing_left: None) -> Iterator[fake_vulkan.FakeVulkan]:
    """A machine with one GPU, whose memory is host-visible. At the end it must have no living objects or misuses."""
    made = fake_vulkan.FakeVulkan([fake_vulkan.INTEGRATED])
    with fake_vulkan.installed(made):
        yield made
    assert not made.misuses, [str(misuse) for misuse in made.misuses]
    assert not made.alive()


@pytest.fixture
def device(fake: fake_vulkan.FakeVulkan) -> Iterator[Device]:
    """Its Vulkan device."""
    with extmem.open_device(kind="vulkan") as opened:
        yield opened
