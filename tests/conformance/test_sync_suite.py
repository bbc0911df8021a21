"""The shipped conformance suite of semaphores and fences on the host device."""

from __future__ import annotations

import sys

import pytest

import extmem
from extmem.testing import conformance
from extmem.testing.conformance import sync
from tests.conformance.sync_cases import parameter, repeats

REMOTE = 'extmem.open_device(kind="host")'
_COPIED = ("dup", "dup2", "dup3", "send_over_socket", "two_processes")


def open_host() -> extmem.Device:
    return extmem.open_device(kind="host")


@pytest.mark.parametrize(("scenario", "variant"), [parameter(*one) for one in sync.cases()])
def test_scenario(scenario: sync.SyncScenario, variant: sync.SyncVariant) -> None:
    if variant.handles == "sync_fd" and scenario.name in _COPIED:
        # The host device exports SYNC_FD as -1, which is no fd that could be copied.
        with pytest.raises(conformance.NotSupportedError, match="-1"):
            sync.run(scenario, variant, open_host, remote=REMOTE)
        return
    if sys.platform == "win32" and variant.handles == "win32_kmt" and variant.payload is sync.Payload.TIMELINE:
        # Timelines have no KMT numbers on Windows, where they crash drivers (S63).
        with pytest.raises(conformance.NotSupportedError, match="a timeline as win32_kmt"):
            sync.run(scenario, variant, open_host, remote=REMOTE)
        return
    sync.run(scenario, variant, open_host, repeats=repeats(variant), remote=REMOTE)


def test_every_scenario_of_the_list_is_there() -> None:
    names = {scenario.name for scenario in sync.SCENARIOS}
    assert names >= {
        "info",
        "create_win32",
        "import_twice",
        "reimport",
        "import_multiple_times",
        "signal_export_import_wait",
        "signal_import",
        "transference",
        "reset",
        "import_signaled",
        "export_multiple_times",
        "dup",
        "dup2",
        "dup3",
        "send_over_socket",
        "signal_wait_import",
        "export_signal_import_wait",
        "export_import_signal_wait",
    }


def test_every_kind_of_payload_is_imported_by_every_handle_type() -> None:
    found = {(v.handles, v.payload, v.temporary) for _, v in sync.cases()}
    for handles in ("fd", "win32", "win32_kmt"):
        for temporary in (False, True):
            assert (handles, sync.Payload.BINARY, temporary) in found
            assert (handles, sync.Payload.FENCE, temporary) in found
            assert ((handles, sync.Payload.TIMELINE, temporary) in found) is not temporary
    assert ("sync_fd", sync.Payload.FENCE, True) in found and ("sync_fd", sync.Payload.TIMELINE, True) not in found


def test_repeats_are_those_of_the_vulkan_suite() -> None:
    _, variant = next(sync.cases())
    assert sync.SyncCase(open_host, variant).repeats == 4096
