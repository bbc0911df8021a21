"""The cases of the conformance suite of semaphores and fences as parameters of tests."""

from __future__ import annotations

import pytest
from _pytest.mark.structures import ParameterSet

from extmem.testing.conformance import Family, sync
from tests.conformance import cases
from tests.systems import on_linux

_SLOW = pytest.mark.slow("repeats with other handles what `make test` runs with fds, or with NT handles on Windows")
_PROCESSES = ("two_processes", "open_in_other_process")


def parameter(scenario: sync.SyncScenario, variant: sync.SyncVariant) -> ParameterSet:
    """Return a case as a parameter. Cases of fds are marked as Linux's.

    Quick are the cases of one device and one process that have fds, or names.
    """
    make = on_linux if variant.family is Family.FD else pytest.param
    made = make(scenario, variant, id=f"{scenario.name}-{variant}")
    repeats = scenario.name.endswith("_multiple_times")
    quick = variant.handles in ("fd", "sync_fd") or scenario.name == "create_named"
    if variant.two_devices or repeats or scenario.name in _PROCESSES or not quick:
        return made._replace(marks=(*made.marks, _SLOW))
    return made


def repeats(variant: sync.SyncVariant) -> int:
    """Return how often a case repeats what it repeats: see `cases.repeats`. Each payload has a case with 4,096."""
    return cases.repeats(alike=variant.temporary or variant.handles != "win32")
