"""The conformance suite's cases as parameters of tests."""

from __future__ import annotations

import pytest
from _pytest.mark.structures import ParameterSet

from extmem.testing import conformance
from tests.systems import on_linux

_REPEATS = pytest.mark.slow("repeats 4,096 times what `make test` repeats with another variant of its family")


def parameter(scenario: conformance.Scenario, variant: conformance.Variant) -> ParameterSet:
    """Return a case as a parameter. Cases of fds are marked as Linux's; cases with 4,096 repeats as slow, except one a
    family.
    """
    make = on_linux if variant.family is conformance.Family.FD else pytest.param
    made = make(scenario, variant, id=f"{scenario.name}-{variant}")
    repeats = scenario.name.endswith("_multiple_times")
    if repeats and (variant.dedicated or variant.group != "host_visible"):
        return made._replace(marks=(*made.marks, _REPEATS))
    return made
