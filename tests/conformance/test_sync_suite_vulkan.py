"""The shipped conformance suite of semaphores and fences on the Vulkan device, and on the scripted driver.

Mesa's software driver of Debian 12 exports none; SwiftShader exports binary semaphores as fds.
"""

from __future__ import annotations

import pytest

import extmem
from extmem.api import Device
from extmem.testing import conformance
from extmem.testing.conformance import sync
from tests.conformance.sync_cases import parameter, repeats

REMOTE = 'extmem.open_device(kind="vulkan")'


@pytest.mark.parametrize(("scenario", "variant"), [parameter(*one) for one in sync.cases()])
def test_scenario(scenario: sync.SyncScenario, variant: sync.SyncVariant, vulkan_device: Device) -> None:
    try:
        sync.run(scenario, variant, lambda: extmem.open_device(kind="vulkan"), repeats=repeats(variant), remote=REMOTE)
    except conformance.NotSupportedError as reason:
        shared = variant.handles == "fd" and variant.payload is sync.Payload.BINARY
        if vulkan_device.name.startswith("SwiftShader") and shared:
            raise  # it reports that it shares these
        pytest.skip(f"the driver reports beforehand that it cannot: {reason}")
