"""The Vulkan device in place of the host device of other tests: as `device` here, and in the peer."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

import extmem
from extmem.api import Device
from extmem.testing.children import Peer
from tests import vulkan_bed
from tests.process.vulkan.steps import visible_type

REAL = {"test_host_payloads.py"}
"""Tests of what every driver can do: they run on the installed one, though it may share nothing."""
ENVIRONMENT = {"EXTMEM_DEVICE": "vulkan"}


@pytest.fixture(scope="session")
def nothing_is_shared() -> bool:
    """Whether the installed driver shares nothing, so that a scripted one replaces it."""
    return vulkan_bed.stands_in()


@pytest.fixture(autouse=True)
def a_driver_that_shares(nothing_is_shared: bool, request: pytest.FixtureRequest) -> Iterator[None]:
    """The installed driver, or the fake, in this process and in those that it starts."""
    if not nothing_is_shared or (request.path.name in REAL and "vulkan_payload" not in request.node.name):
        yield
        return
    with vulkan_bed.stood_in():
        yield


@pytest.fixture
def device(vulkan_device: Device) -> Device:
    """A Vulkan device that the test closes with everything on it; the test is skipped where there is no driver."""
    return vulkan_device


@pytest.fixture
def host() -> Iterator[Device]:
    """The host device."""
    with extmem.open_device(kind="host") as opened:
        yield opened


@pytest.fixture
def peer(vulkan_device: Device) -> Iterator[Peer]:
    """Another process, which opens the Vulkan device where a call names no device."""
    with Peer(env=ENVIRONMENT) as other:
        yield other


@pytest.fixture
def seen_type(device: Device) -> int:
    """A memory type that can be shared and is visible to the host; the test is skipped where there is none."""
    kind = visible_type(device)
    if kind is None:
        # Mesa's software driver has no other memory, so there its lack is a failure.
        assert not device.name.startswith("llvmpipe")
        pytest.skip("this device shares nothing that the host sees")
    return kind
