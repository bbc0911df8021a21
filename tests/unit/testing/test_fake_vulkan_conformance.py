"""The shipped conformance suite over the fake driver: a discrete GPU, and one whose images need their own memory."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator

import pytest

import extmem
from extmem import vk
from extmem.testing import conformance, fake_vulkan

_FD = int(vk.ExternalMemoryHandleTypeFlagBits.OPAQUE_FD)
GPUS = {
    "discrete": fake_vulkan.DISCRETE,
    "integrated": dataclasses.replace(
        fake_vulkan.INTEGRATED,
        external=(
            fake_vulkan.External("buffer", _FD, dedicated="required"),
            fake_vulkan.External("image", _FD, dedicated="required"),
        ),
    ),
}
CASES = list(conformance.cases())


@pytest.fixture(scope="module", params=GPUS)
def fake(request: pytest.FixtureRequest) -> Iterator[fake_vulkan.FakeVulkan]:
    made = fake_vulkan.FakeVulkan([GPUS[request.param]])
    with fake_vulkan.installed(made):
        assert extmem.enumerate_devices()  # so that the instance is there before the first count
        yield made
    assert not made.misuses and not made.alive()


@pytest.mark.parametrize(("scenario", "variant"), CASES, ids=[f"{s.name}-{v}" for s, v in CASES])
def test_scenario(scenario: conformance.Scenario, variant: conformance.Variant, fake: fake_vulkan.FakeVulkan) -> None:
    before = fake.alive()
    fake.misuses.clear()
    fake.calls.clear()
    try:
        conformance.run(
            scenario,
            variant,
            lambda: extmem.open_device(kind="vulkan"),
            repeats=64,
            remote=fake_vulkan.elsewhere(fake),
        )
    except conformance.NotSupportedError as reason:
        # The one thing that it says it cannot do, and it is the second GPU that says so.
        assert fake.gpus[0] is GPUS["integrated"] and not variant.dedicated, reason
    found = [str(misuse) for misuse in fake.misuses]
    assert not found
    assert fake.alive() == before
