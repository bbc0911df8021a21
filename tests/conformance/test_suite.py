"""The shipped conformance suite on the host device: every scenario × family × dedication × one or two devices."""

from __future__ import annotations

import pytest

import extmem
from extmem.devices.host import HAS_FDS
from extmem.testing import conformance
from tests.conformance.cases import is_slow, parameter, repeats

# Every family that payloads have on this system.
CASES = [(s, v) for s, v in conformance.cases() if HAS_FDS or v.family is not conformance.Family.FD]


@pytest.mark.parametrize(("scenario", "variant"), [parameter(*one) for one in conformance.cases()])
def test_scenario(scenario: conformance.Scenario, variant: conformance.Variant) -> None:
    # The host device supports all of it, so NotSupportedError is a failure here and not a skip.
    conformance.run(scenario, variant, extmem.open_device, repeats=repeats(alike=is_slow(scenario, variant)))


def test_every_scenario_of_the_list_is_there() -> None:
    names = {scenario.name for scenario in conformance.SCENARIOS}
    assert names >= {
        "create_win32",
        "create_named",
        "import_twice",
        "import_multiple_times",
        "export_multiple_times",
        "dup",
        "dup2",
        "dup3",
        "send_over_socket",
        "send_to_other_process",
        "open_in_other_process",
        "buffer_info",
        "image_info",
        "bind_export_import_bind",
        "export_bind_import_bind",
        "export_import_bind_bind",
        "zero_handle_memory",
    }


def test_every_family_runs_suballocated_and_dedicated() -> None:
    assert {(v.family.value, v.dedicated) for _, v in CASES} == {
        (family, dedicated)
        for family in ("fd", "win32", "win32_kmt")[0 if HAS_FDS else 1 :]
        for dedicated in (False, True)
    }


def test_repeats_are_those_of_the_vulkan_suite() -> None:
    with conformance.Case(extmem.open_device, CASES[0][1]) as case:
        assert case.repeats == 4096
