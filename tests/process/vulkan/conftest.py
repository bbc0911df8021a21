"""The Vulkan device where other tests have the host device: `device` here, and in the peer."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

import extmem
from extmem.memory import Device
from extmem.testing.children import Peer
from tests.process.vulkan.steps import visible_type

ENVIRONMENT = {"EXTMEM_DEVICE": "vulkan"}


@pytest.fixture
def device(vulkan_device: Device) -> Device:
    """A Vulkan device that the test closes with everything on it; a skip where there is no driver."""
    return vulkan_device


@pytest.fixture
def host() -> Iterator[Device]:
    """The host device beside it."""
    with extmem.open_device(kind="host") as opened:
        yield opened


@pytest.fixture
def peer(vulkan_device: Device) -> Iterator[Peer]:
    """Another process, which opens the Vulkan device when it asks for none in particular."""
    with Peer(env=ENVIRONMENT) as other:
        yield other


@pytest.fixture
def seen_type(device: Device) -> int:
    """A memory type to share that the host sees, for tests of mapping what is shared; a skip where there is none."""
    kind = visible_type(device)
    if kind is None:
        # Mesa's software driver has no other memory, so there this is a failure.
        assert not device.name.startswith("llvmpipe")
        pytest.skip("this device shares nothing that the host sees")
    return kind
