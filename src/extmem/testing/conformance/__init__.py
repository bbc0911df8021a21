"""What every device must do: the scenarios of the Vulkan conformance tests for external memory, and some more.

A scenario is a plain function of a `Case`. `run` makes the case with a function that opens a device, and counts leaks.
To test a device of your own with the suite::

    for scenario, variant in conformance.cases():
        try:
            conformance.run(scenario, variant, make_my_device)
        except conformance.NotSupportedError as reason:
            ...   # decide which of these are acceptable; the suite never skips by itself

The scenarios have the names of the Vulkan conformance tests. Names, other processes, two devices, refused imports and
leaks, which those tests omit, are added.
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
    """A scenario and the variants that it applies to.

    two_devices: it also applies to two `Device`s of one physical device.
    """

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
"""Every scenario, in the order that suits the development of a new device."""


def cases() -> Iterator[tuple[Scenario, Variant]]:
    """Return every scenario with every variant that it applies to."""
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
    """Run one scenario, and check that it leaves nothing behind.

    make_device: opens the device.
    repeats: how often the `…_multiple_times` scenarios repeat.
    remote: a Python expression that opens the device in another process, where `extmem` is imported.
    Errors: ConformanceError or any other exception where the device fails; LeakError where it leaks; NotSupportedError
    where its capabilities do not include this variant.
    """
    with leaks.no_leaks(), Case(make_device, variant, repeats=repeats, remote=remote) as case:
        if variant.group != "misc":
            case.require_support()
        scenario.run(case)
