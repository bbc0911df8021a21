"""The cases of the conformance suite of semaphores and fences as parameters of tests."""

from __future__ import annotations

import pytest
from _pytest.mark.structures import ParameterSet

from extmem.testing.conformance import Family, sync
from tests.systems import on_linux

_SLOW = pytest.mark.slow("repeats with other handles what `make test` runs with fds, or with NT handles on Windows")
_PROCESSES = ("two_processes", "open_in_other_process")


def is_slow(scenario: sync.SyncScenario, variant: sync.SyncVariant) -> bool:
    """Return whether a case is not quick. Quick are those of one device and one process that have fds, or names."""
    repeats = scenario.name.endswith("_multiple_times")
    quick = variant.handles in ("fd", "sync_fd") or scenario.name == "create_named"
    return variant.two_devices or repeats or scenario.name in _PROCESSES or not quick


def parameter(scenario: sync.SyncScenario, variant: sync.SyncVariant) -> ParameterSet:
    """Return a case as a parameter. Cases of fds are marked as Linux's, others by `is_slow`."""
    make = on_linux if variant.family is Family.FD else pytest.param
    made = make(scenario, variant, id=f"{scenario.name}-{variant}")
    return made._replace(marks=(*made.marks, _SLOW)) if is_slow(scenario, variant) else made
