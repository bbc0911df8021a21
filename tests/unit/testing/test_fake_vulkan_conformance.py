"""The shipped conformance suite on the fake driver: a discrete GPU, and one whose images need dedicated memory."""

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


def supported(gpu: str, variant: conformance.Variant) -> bool:
    """Return whether the GPU shares such memory: the second one only if dedicated. The group "misc" shares none."""
    return gpu == "discrete" or variant.dedicated or variant.group == "misc"


CASES = [
    (on_linux if variant.family is conformance.Family.FD else pytest.param)(
        gpu, scenario, variant, id=f"{gpu}-{scenario.name}-{variant}"
    )
    for gpu in GPUS
    for scenario, variant in conformance.cases()
    if supported(gpu, variant)
]
FAMILIES = [
    (on_linux if family is conformance.Family.FD else pytest.param)(family, id=family.value)
    for family in conformance.Family
]


@pytest.fixture(scope="module")
def fake(request: pytest.FixtureRequest) -> Iterator[fake_vulkan.FakeVulkan]:
    made = fake_vulkan.FakeVulkan([GPUS[request.param]])
    with fake_vulkan.installed(made):
        assert extmem.enumerate_devices()  # so that the instance exists before the first count
        yield made
    assert not made.misuses and not made.alive()


def run(scenario: conformance.Scenario, variant: conformance.Variant, fake: fake_vulkan.FakeVulkan) -> None:
    conformance.run(
        scenario, variant, lambda: extmem.open_device(kind="vulkan"), repeats=64, remote=fake_vulkan.elsewhere(fake)
    )


@pytest.mark.parametrize(("fake", "scenario", "variant"), CASES, indirect=["fake"])
def test_scenario(scenario: conformance.Scenario, variant: conformance.Variant, fake: fake_vulkan.FakeVulkan) -> None:
    before = fake.alive()
    fake.misuses.clear()
    fake.calls.clear()
    run(scenario, variant, fake)
    found = [str(misuse) for misuse in fake.misuses]
    assert not found
    assert fake.alive() == before


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("group", ["buffer", "image"])
@pytest.mark.parametrize("fake", ["integrated"], indirect=True)
def test_a_gpu_that_shares_dedicated_memory_alone_refuses_other_memory(
    group: conformance.Group, family: conformance.Family, fake: fake_vulkan.FakeVulkan
) -> None:
    scenario = next(one for one in conformance.SCENARIOS if one.name == "bind_export_import_bind")
    with pytest.raises(conformance.NotSupportedError, match="as dedicated allocations alone"):
        run(scenario, conformance.Variant(family, group, dedicated=False), fake)
    assert not fake.misuses
    run(scenario, conformance.Variant(family, group, dedicated=True), fake)
