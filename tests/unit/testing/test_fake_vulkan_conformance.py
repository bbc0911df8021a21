"""The shipped conformance suite over the fake driver: a discrete GPU, and one whose images need their own memory."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator

import pytest

import extmem
from extmem.testing import conformance, fake_vulkan
from tests.systems import on_linux

GPUS = {
    "discrete": fake_vulkan.DISCRETE,
    "integrated": dataclasses.replace(
        fake_vulkan.INTEGRATED, external=fake_vulkan.shared(buffer="required", image="required")
    ),
}
CASES = [
    (on_linux if variant.family is conformance.Family.FD else pytest.param)(
        scenario, variant, id=f"{scenario.name}-{variant}"
    )
    for scenario, variant in conformance.cases()
]


@pytest.fixture(scope="module", params=GPUS)
def fake(request: pytest.FixtureRequest) -> Iterator[fake_vulkan.FakeVulkan]:
    made = fake_vulkan.FakeVulkan([GPUS[request.param]])
    with fake_vulkan.installed(made):
        assert extmem.enumerate_devices()  # so that the instance is there before the first count
        yield made
    assert not made.misuses and not made.alive()


@pytest.mark.parametrize(("scenario", "variant"), CASES)
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
