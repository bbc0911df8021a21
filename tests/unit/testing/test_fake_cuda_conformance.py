"""The shipped conformance suite on the CUDA device, with the fake driver."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from _pytest.mark.structures import ParameterSet

import extmem
from extmem.testing import conformance, fake_cuda
from tests.systems import on_linux


def _parameter(family: conformance.Family, *values: object, id: str) -> ParameterSet:
    """Return a parameter. On Windows CUDA exports by NT handle alone."""
    make = pytest.param if family is conformance.Family.WIN32 else on_linux
    return make(*values, id=id)


REFUSED = {
    "host_visible": "no memory type that the host sees",
    "image": "makes no images; make the image on its Vulkan device",
}
"""The groups of scenarios that a CUDA device does not support, and its message for each."""
SOCKET = "send_over_socket"
CASES = [
    _parameter(variant.family, scenario, variant, id=f"{scenario.name}-{variant}")
    for scenario, variant in conformance.cases()
    if variant.group not in REFUSED and scenario.name != SOCKET
]


@pytest.fixture(scope="module")
def fake() -> Iterator[fake_cuda.FakeCuda]:
    made = fake_cuda.FakeCuda()
    with fake_cuda.installed(made):
        yield made
    assert not made.misuses and not made.alive()


def run(scenario: conformance.Scenario, variant: conformance.Variant, fake: fake_cuda.FakeCuda) -> None:
    fake.misuses.clear()
    conformance.run(
        scenario, variant, lambda: extmem.open_device(kind="cuda"), repeats=64, remote=fake_cuda.elsewhere(fake)
    )


@pytest.mark.parametrize(("scenario", "variant"), CASES)
def test_scenario(scenario: conformance.Scenario, variant: conformance.Variant, fake: fake_cuda.FakeCuda) -> None:
    run(scenario, variant, fake)
    found = [str(misuse) for misuse in fake.misuses]
    assert not found and not fake.alive()


@pytest.mark.parametrize(
    ("family", "group"),
    [
        _parameter(family, family, group, id=f"{family.value}-{group}")
        for family in conformance.Family
        for group in REFUSED
    ],
)
def test_what_it_cannot_do_is_refused_beforehand(
    family: conformance.Family, group: conformance.Group, fake: fake_cuda.FakeCuda
) -> None:
    scenario = next(one for one in conformance.SCENARIOS if group in one.groups and family in one.families)
    with pytest.raises(conformance.NotSupportedError, match=REFUSED[group]):
        run(scenario, conformance.Variant(family, group, dedicated=False), fake)
    assert not fake.misuses and not fake.alive()


@pytest.mark.linux_only("file descriptors carry memory on Linux alone")
def test_what_comes_over_a_foreign_socket_comes_without_its_description(fake: fake_cuda.FakeCuda) -> None:
    scenario = next(one for one in conformance.SCENARIOS if one.name == SOCKET)
    with pytest.raises(extmem.DescriptorError, match="carries no description"):
        run(scenario, conformance.Variant(conformance.Family.FD, "device_only", dedicated=False), fake)
    assert not fake.misuses and not fake.alive()
