"""A driver to look at, and nothing left behind by any test."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from extmem.devices.vulkan.driver import VulkanDriver


@pytest.fixture(autouse=True)
def nothing_left(request: pytest.FixtureRequest) -> Iterator[None]:
    """Requested first, so it looks last. Tests without a device have nothing to leave, and are left alone."""
    if not {"driver", "vulkan_device"} & set(request.fixturenames):
        yield
        return
    from extmem.testing.leaks import no_leaks

    with no_leaks():
        yield


@pytest.fixture
def driver(vulkan_device: Any) -> VulkanDriver:
    """The driver behind a device that is closed at the end."""
    found = vulkan_device.driver
    assert isinstance(found, VulkanDriver)
    return found
