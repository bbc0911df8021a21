"""The shipped conformance suite on the Vulkan device, within one VkInstance, across two, and across processes."""

from __future__ import annotations

import sys

import pytest

import extmem
from extmem.api import Device
from extmem.devices.vulkan.backend import VulkanBackend
from extmem.devices.vulkan.instance import Instance
from extmem.testing import conformance
from tests import vulkan_bed
from tests.conformance.cases import parameter

REMOTE = 'extmem.open_device(kind="vulkan")'
CASES = [parameter(*case) for case in conformance.cases()]
ACROSS = [parameter(scenario, variant) for scenario, variant in conformance.cases() if variant.two_devices]


class Loner(Device):
    """A device with a VkInstance of its own, which is destroyed with it: two of them have nothing in common but
    handles.
    """

    def __new__(cls) -> Loner:
        """It takes no argument, and the library's class wants a backend."""
        return object.__new__(cls)

    def __init__(self) -> None:
        self.instance = Instance()
        try:
            super().__init__(VulkanBackend(self.instance.physical_devices()[0]))
        except BaseException:
            self.instance.close()
            raise

    def close(self) -> None:
        super().close()
        self.instance.close()


@pytest.fixture(scope="module", autouse=True)
def shares() -> None:
    """Skip once for all cases where a driver of Windows shares nothing; there the suite runs on the fake driver."""
    if vulkan_bed.stands_in():
        pytest.skip("the driver reports beforehand that it cannot: it exports and imports no OPAQUE_WIN32")


def run(
    scenario: conformance.Scenario,
    variant: conformance.Variant,
    make_device: conformance.MakeDevice,
    device: Device,
) -> None:
    try:
        conformance.run(scenario, variant, make_device, remote=REMOTE)
    except conformance.NotSupportedError as reason:
        # Mesa's software driver supports everything in the suite, so there this is a failure. Under Wine it shares
        # nothing:
        # Wine passes no Win32 handles to a driver of Linux.
        if device.name.startswith("llvmpipe") and sys.platform == "linux":
            raise
        pytest.skip(f"the driver reports beforehand that it cannot: {reason}")


@pytest.mark.parametrize(("scenario", "variant"), CASES)
def test_scenario(scenario: conformance.Scenario, variant: conformance.Variant, vulkan_device: Device) -> None:
    run(scenario, variant, lambda: extmem.open_device(kind="vulkan"), vulkan_device)


@pytest.mark.parametrize(("scenario", "variant"), ACROSS)
def test_scenario_across_two_instances(
    scenario: conformance.Scenario, variant: conformance.Variant, vulkan_device: Device
) -> None:
    run(scenario, variant, Loner, vulkan_device)


def test_two_instances_have_nothing_in_common(vulkan_device: Device) -> None:
    with Loner() as one, Loner() as two:
        assert one.instance.raw != two.instance.raw != vulkan_device.backend.device.physical.instance.raw  # type: ignore[attr-defined]
        assert one.uuid == two.uuid
    assert not one.instance.owner.owes, "the instance ends with its device"
