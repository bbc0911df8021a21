"""What every device must do: the scenarios of the Vulkan conformance tests for external memory, and some of our own.

A scenario is a plain function over a `Case`; `run` makes the case from a maker of devices and counts leaks around it.
To hold a device of your own against the suite::

    for scenario, variant in conformance.cases():
        try:
            conformance.run(scenario, variant, make_my_device)
        except conformance.NotSupportedError as reason:
            ...   # decide which of these are in order; the suite never skips by itself

Vulkan's names are kept. What they leave out and we add: names, other processes, two devices, refused imports, leaks.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from extmem.testing import leaks
from extmem.testing.conformance import copies, resources, sharing
from extmem.testing.conformance._case import (
    Case,
    ConformanceError,
    Family,
    Group,
    MakeDevice,
    NotSupportedError,
    Variant,
    expect,
)

__all__ = [
    "SCENARIOS",
    "Case",
    "ConformanceError",
    "Family",
    "Group",
    "MakeDevice",
    "NotSupportedError",
    "Scenario",
    "Variant",
    "cases",
    "expect",
    "run",
]

_ALL = (Family.FD, Family.WIN32, Family.WIN32_KMT)
_OWNING = (Family.FD, Family.WIN32)
_WIN32 = (Family.WIN32, Family.WIN32_KMT)
_PLAIN: tuple[Group, ...] = ("device_only", "host_visible")
_VISIBLE: tuple[Group, ...] = ("host_visible",)


@dataclass(frozen=True, slots=True)
class Scenario:
    """A scenario and what it is for. `two_devices`: run it also across two `Device`s of one physical device."""

    name: str
    run: Callable[[Case], None]
    families: tuple[Family, ...]
    groups: tuple[Group, ...]
    two_devices: bool = True


SCENARIOS = (
    Scenario("create_win32", sharing.create_win32, _WIN32, _PLAIN),
    Scenario("create_named", sharing.create_named, (Family.WIN32,), _PLAIN),
    Scenario("import_twice", sharing.import_twice, _ALL, _PLAIN),
    Scenario("import_multiple_times", sharing.import_multiple_times, _ALL, _PLAIN, two_devices=False),
    Scenario("exporter_closes_first", sharing.exporter_closes_first, _ALL, _PLAIN),
    Scenario("refused_import_keeps_the_handle", sharing.refused_import_keeps_the_handle, _ALL, _PLAIN),
    Scenario("export_multiple_times", copies.export_multiple_times, _OWNING, _PLAIN, two_devices=False),
    Scenario("dup", copies.dup, _OWNING, _PLAIN),
    Scenario("dup2", copies.dup2, _OWNING, _PLAIN),
    Scenario("dup3", copies.dup3, _OWNING, _PLAIN),
    Scenario("send_over_socket", copies.send_over_socket, (Family.FD,), _PLAIN),
    Scenario("send_to_other_process", copies.send_to_other_process, _ALL, _VISIBLE, two_devices=False),
    Scenario("open_in_other_process", copies.open_in_other_process, (Family.WIN32,), _VISIBLE, two_devices=False),
    Scenario("buffer_info", resources.buffer_info, _ALL, ("buffer",), two_devices=False),
    Scenario("image_info", resources.image_info, _ALL, ("image",), two_devices=False),
    Scenario("bind_export_import_bind", resources.bind_export_import_bind, _ALL, ("buffer", "image")),
    Scenario("export_bind_import_bind", resources.export_bind_import_bind, _ALL, ("buffer", "image")),
    Scenario("export_import_bind_bind", resources.export_import_bind_bind, _ALL, ("buffer", "image")),
    Scenario("zero_handle_memory", resources.zero_handle_memory, _ALL, ("misc",), two_devices=False),
)
"""Every scenario, in the order in which a new device is best held against them."""


def cases() -> Iterator[tuple[Scenario, Variant]]:
    """Every scenario with every variant that it is for."""
    for scenario in SCENARIOS:
        for family in scenario.families:
            for group in scenario.groups:
                for dedicated in (False, True):
                    yield scenario, Variant(family, group, dedicated)
                    if scenario.two_devices:
                        yield scenario, Variant(family, group, dedicated, two_devices=True)


def run(
    scenario: Scenario,
    variant: Variant,
    make_device: MakeDevice,
    *,
    repeats: int = 4096,
    remote: str = "extmem.open_device()",
) -> None:
    """Run one scenario, and see that it leaves nothing behind.

    repeats: how often the `…_multiple_times` scenarios repeat. remote: an expression that makes the device in another
        process, where `extmem` is imported.
    Errors: ConformanceError or any other exception where the device fails; LeakError where it leaks; NotSupportedError
    where it says beforehand that it cannot do this.
    """
    with leaks.no_leaks(), Case(make_device, variant, repeats=repeats, remote=remote) as case:
        if variant.group != "misc":
            case.require_support()
        scenario.run(case)
