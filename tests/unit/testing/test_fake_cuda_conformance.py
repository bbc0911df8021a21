"""The shipped conformance suite over the CUDA device, on the fake driver."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from _pytest.mark.structures import ParameterSet

import extmem
from extmem.testing import conformance, fake_cuda
from tests.systems import on_linux


def _cases(*, images: bool) -> list[ParameterSet]:
    """On Windows CUDA exports by NT handle alone."""
    return [
        (pytest.param if variant.family is conformance.Family.WIN32 else on_linux)(
            scenario, variant, id=f"{scenario.name}-{variant}"
        )
        for scenario, variant in conformance.cases()
        if (variant.group == "image") == images
    ]


@pytest.fixture(scope="module")
def fake() -> Iterator[fake_cuda.FakeCuda]:
    made = fake_cuda.FakeCuda()
    with fake_cuda.installed(made):
        yield made
    assert not made.misuses and not made.alive()


def run(scenario: conformance.Scenario, variant: conformance.Variant, fake: fake_cuda.FakeCuda) -> None:
    conformance.run(
        scenario, variant, lambda: extmem.open_device(kind="cuda"), repeats=64, remote=fake_cuda.elsewhere(fake)
    )


@pytest.mark.parametrize(("scenario", "variant"), _cases(images=False))
def test_scenario(scenario: conformance.Scenario, variant: conformance.Variant, fake: fake_cuda.FakeCuda) -> None:
    fake.misuses.clear()
    try:
        run(scenario, variant, fake)
    except conformance.NotSupportedError as reason:
        assert variant.group == "host_visible", reason  # none of its memory is the host's
    except extmem.DescriptorError as error:
        # What comes over a foreign socket comes without its description, which CUDA has to be told.
        assert scenario.name == "send_over_socket" and "carries no description" in str(error)
    else:
        assert variant.group != "host_visible" and scenario.name != "send_over_socket"
    found = [str(misuse) for misuse in fake.misuses]
    assert not found and not fake.alive()


@pytest.mark.parametrize(("scenario", "variant"), _cases(images=True))
def test_images_are_vulkans(
    scenario: conformance.Scenario, variant: conformance.Variant, fake: fake_cuda.FakeCuda
) -> None:
    with pytest.raises(conformance.NotSupportedError, match="makes no images; make the image on its Vulkan device"):
        run(scenario, variant, fake)
