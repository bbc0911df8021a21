"""The conformance suite's cases as parameters of tests."""

from __future__ import annotations

import pytest
from _pytest.mark.structures import ParameterSet

from extmem.testing import conformance
from tests.systems import on_linux, under_wine

_REPEATS = pytest.mark.slow("repeats 4,096 times what `make test` repeats with another variant of its family")
_REPEATS_OF_WINE = 256
"""The repeats of some cases under Wine, where one process serves the requests of all: 4,096 take half a minute."""


def repeats(*, alike: bool) -> int:
    """Return how often a case repeats what it repeats: as often as the Vulkan suite; under Wine less, if it is alike.

    alike: whether it is like another case, which repeats 4,096 times on each system.
    """
    return _REPEATS_OF_WINE if alike and under_wine() else 4096


def is_slow(scenario: conformance.Scenario, variant: conformance.Variant) -> bool:
    """Return whether a case repeats 4,096 times what another variant of its family repeats, too."""
    return scenario.name.endswith("_multiple_times") and (variant.dedicated or variant.group != "host_visible")


def parameter(scenario: conformance.Scenario, variant: conformance.Variant) -> ParameterSet:
    """Return a case as a parameter. Cases of fds are marked as Linux's, others by `is_slow`."""
    make = on_linux if variant.family is conformance.Family.FD else pytest.param
    made = make(scenario, variant, id=f"{scenario.name}-{variant}")
    return made._replace(marks=(*made.marks, _REPEATS)) if is_slow(scenario, variant) else made
