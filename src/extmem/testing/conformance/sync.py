"""What every device must do with semaphores and fences: the scenarios of the Vulkan conformance tests, and some more.

They are run as those of memory::

    for scenario, variant in conformance.sync.cases():
        try:
            conformance.sync.run(scenario, variant, make_my_device)
        except conformance.NotSupportedError as reason:
            ...   # decide which of these are acceptable; the suite never skips by itself

Scenarios that the Vulkan conformance tests also have carry their names. Names, other processes and refused imports,
which those tests omit, are added.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from extmem.testing import leaks
from extmem.testing.conformance import sync_copies, sync_payloads
from extmem.testing.conformance._case import MakeDevice
from extmem.testing.conformance._sync_case import Payload, SyncCase, SyncVariant

__all__ = ["SCENARIOS", "Payload", "SyncCase", "SyncScenario", "SyncVariant", "cases", "run"]

_FD, _SYNC, _WIN32, _KMT = "fd", "sync_fd", "win32", "win32_kmt"
_ALL = (_FD, _SYNC, _WIN32, _KMT)
_REFERENCES = (_FD, _WIN32, _KMT)
_COPIED = (_FD, _SYNC, _WIN32)
_EVERY = tuple(Payload)
_SEMAPHORES = (Payload.BINARY,)
_FENCES = (Payload.FENCE,)


@dataclass(frozen=True, slots=True)
class SyncScenario:
    """A scenario and the variants that it applies to.

    two_devices: it also applies to two `Device`s of one physical device. temporary: it sets the permanence itself, so
    that only one of the two is a variant.
    """

    name: str
    run: Callable[[SyncCase], None]
    handles: tuple[str, ...] = _ALL
    payloads: tuple[Payload, ...] = _EVERY
    two_devices: bool = True
    temporary: bool | None = None


SCENARIOS = (
    SyncScenario("info", sync_payloads.info, two_devices=False, temporary=False),
    SyncScenario("create_win32", sync_payloads.create_win32, (_WIN32, _KMT), two_devices=False, temporary=False),
    SyncScenario("create_named", sync_payloads.create_named, (_WIN32,)),
    SyncScenario("signal_export_import_wait", sync_payloads.signal_export_import_wait),
    SyncScenario("export_signal_import_wait", sync_payloads.export_signal_import_wait, _REFERENCES),
    SyncScenario("export_import_signal_wait", sync_payloads.export_import_signal_wait, _REFERENCES),
    SyncScenario("import_twice", sync_payloads.import_twice),
    SyncScenario("reimport", sync_payloads.reimport),
    SyncScenario("import_multiple_times", sync_payloads.import_multiple_times, two_devices=False),
    SyncScenario("signal_import", sync_payloads.signal_import),
    SyncScenario("signal_wait_import", sync_payloads.signal_wait_import),
    SyncScenario("transference", sync_payloads.transference),
    SyncScenario("reset", sync_payloads.reset, payloads=_FENCES),
    SyncScenario("restored_by_the_wait", sync_payloads.restored_by_the_wait, payloads=_SEMAPHORES, temporary=True),
    SyncScenario(
        "import_signaled",
        sync_payloads.import_signaled,
        (_SYNC,),
        (Payload.BINARY, Payload.FENCE),
        two_devices=False,
        temporary=True,
    ),
    SyncScenario("refused_import_keeps_the_handle", sync_payloads.refused_import_keeps_the_handle, two_devices=False),
    SyncScenario("export_multiple_times", sync_copies.export_multiple_times, _COPIED, two_devices=False),
    SyncScenario("dup", sync_copies.dup, _COPIED, two_devices=False),
    SyncScenario("dup2", sync_copies.dup2, _COPIED, two_devices=False),
    SyncScenario("dup3", sync_copies.dup3, _COPIED, two_devices=False),
    SyncScenario("send_over_socket", sync_copies.send_over_socket, (_FD, _SYNC), two_devices=False),
    SyncScenario("two_processes", sync_copies.two_processes, two_devices=False),
    SyncScenario("open_in_other_process", sync_copies.open_in_other_process, (_WIN32,), two_devices=False),
)
"""Every scenario, in the order that suits the development of a new device."""


def cases() -> Iterator[tuple[SyncScenario, SyncVariant]]:
    """Return every scenario with every variant that it applies to.

    Combinations that the specification excludes are omitted: a timeline imported temporarily or as SYNC_FD, and SYNC_FD
    imported permanently.
    """
    for scenario in SCENARIOS:
        for handles in scenario.handles:
            for payload in scenario.payloads:
                for temporary in (False, True) if scenario.temporary is None else (scenario.temporary,):
                    timeline, copies = payload is Payload.TIMELINE, handles == _SYNC
                    if (timeline and (temporary or copies)) or (copies and not temporary and scenario.name != "info"):
                        continue
                    yield scenario, SyncVariant(handles, payload, temporary)
                    if scenario.two_devices:
                        yield scenario, SyncVariant(handles, payload, temporary, two_devices=True)


def run(
    scenario: SyncScenario,
    variant: SyncVariant,
    make_device: MakeDevice,
    *,
    repeats: int = 4096,
    remote: str = "extmem.open_device()",
) -> None:
    """Run one scenario, and check that it leaves nothing behind. Parameters and errors: as `conformance.run`."""
    with leaks.no_leaks(), SyncCase(make_device, variant, repeats=repeats, remote=remote) as case:
        case.require_support()
        scenario.run(case)
