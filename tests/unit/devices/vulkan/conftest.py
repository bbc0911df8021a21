"""The driver for these tests, and a leak check around each."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from extmem.devices.vulkan.backend import VulkanBackend
from tests import vulkan_bed

REAL = {
    "test_instance.py",
    "test_physical.py",
    "test_sync_real.py",
    "test_transfers.py",
    "test_a_buffer_larger_than_any_memory_is_an_error",
}
"""Tests of what every driver can do, or a fake cannot: they run on the installed driver, even if it shares nothing."""


@pytest.fixture(scope="session")
def nothing_is_shared() -> bool:
    """Whether the installed driver shares nothing, so that a scripted one replaces it."""
    return vulkan_bed.stands_in()


@pytest.fixture(autouse=True)
def a_driver_that_shares(nothing_is_shared: bool, request: pytest.FixtureRequest) -> Iterator[None]:
    """The installed driver, or the fake."""
    if not nothing_is_shared or REAL & {request.path.name, request.node.name}:
        yield
        return
    with vulkan_bed.stood_in():
        yield


@pytest.fixture(autouse=True)
def nothing_left(request: pytest.FixtureRequest) -> Iterator[None]:
    """Check for leaks. It is requested first, so its end runs last. Tests without a device need no check."""
    if not {"backend", "vulkan_device"} & set(request.fixturenames):
        yield
        return
    from extmem.testing.leaks import no_leaks

    with no_leaks():
        yield


@pytest.fixture
def backend(vulkan_device: Any) -> VulkanBackend:
    """The backend of a device that is closed at the end."""
    found = vulkan_device.backend
    assert isinstance(found, VulkanBackend)
    return found
