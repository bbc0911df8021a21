"""The shipped conformance suite of semaphores and fences on the scripted driver: one that shares all opaque types."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

import extmem
from extmem.testing import conformance, fake_vulkan
from extmem.testing.conformance import sync
from tests.systems import on_linux

CASES = [
    (on_linux if variant.family is conformance.Family.FD else pytest.param)(
        scenario, variant, id=f"{scenario.name}-{variant}"
    )
    for scenario, variant in sync.cases()
]


@pytest.fixture(scope="module")
def fake() -> Iterator[fake_vulkan.FakeVulkan]:
    made = fake_vulkan.FakeVulkan([fake_vulkan.DISCRETE])
    with fake_vulkan.installed(made):
        assert extmem.enumerate_devices()  # so that the instance exists before the first count
        yield made
    assert not made.misuses and not made.alive()


@pytest.mark.parametrize(("scenario", "variant"), CASES)
def test_scenario(scenario: sync.SyncScenario, variant: sync.SyncVariant, fake: fake_vulkan.FakeVulkan) -> None:
    before = fake.alive()
    fake.misuses.clear()
    fake.calls.clear()
    try:
        sync.run(
            scenario,
            variant,
            lambda: extmem.open_device(kind="vulkan"),
            repeats=64,
            remote=fake_vulkan.elsewhere(fake),
        )
    except conformance.NotSupportedError as reason:
        if variant.handles == "fd":
            raise
        pytest.skip(f"the driver reports beforehand that it cannot: {reason}")
    assert not fake.misuses
    assert fake.alive() == before
