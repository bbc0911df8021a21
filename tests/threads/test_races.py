"""Every pair of public operations on one object in two threads, alone and with the one that closes it in a third
thread.

See `rounds`.
"""

from __future__ import annotations

import contextlib
import os
import sys
import time
from collections.abc import Iterator

import pytest
from _pytest.mark.structures import ParameterSet

import extmem
from extmem.api import DeviceMemory
from extmem.devices.host import HAS_FDS
from extmem.testing.leaks import no_leaks
from tests import cuda_bed, operations, tagged_payloads
from tests.systems import on_linux
from tests.threads import rounds

KINDS = ("host", "vulkan", "cuda")
FEW = {"host": 250 if HAS_FDS else 80, "vulkan": 80, "cuda": 80}
MOST = {"host": 2500 if HAS_FDS else 300, "vulkan": 300, "cuda": 300}
"""The number of combinations of a class's operations that are tried, in the quick tests and in the slow ones. The soak
draws from all of them for minutes. Windows has fewer on the host: where Wine stands in for it, each call of its kernel
is a message to a server, which takes long on a busy machine.
"""
_SELDOM = {"MemorySlice": 8, "NamedArrays": 8}
"""Classes most of whose operations are those of DeviceMemory: only one of so many combinations is tried."""
_NOWHERE: dict[str, frozenset[str]] = {
    "host": frozenset(),
    "vulkan": frozenset(),
    "cuda": frozenset({"Image", "Commands"}),
}
_LINUX_ALONE = {
    "host": frozenset({"FdHandle"}),
    "vulkan": frozenset({"FdHandle"}),
    "cuda": frozenset({"FdHandle", "KmtHandle"}),
}
LACKING = {kind: lacking if HAS_FDS else lacking | _LINUX_ALONE[kind] for kind, lacking in _NOWHERE.items()}
"""The classes that each device makes no objects of."""


def _parameters() -> list[ParameterSet]:
    """Return each kind of device with each class that it makes objects of, on this system or on Linux alone."""
    return [
        on_linux(device, kind, id=f"{device}-{kind}") if kind in _LINUX_ALONE[device] else pytest.param(device, kind)
        for device in KINDS
        for kind in operations.CLASSES
        if kind not in _NOWHERE[device]
    ]


@pytest.fixture
def world(request: pytest.FixtureRequest) -> Iterator[tagged_payloads.World]:
    """A device of the kind that the test requests. CUDA's is scripted: tests of the real one are in tests/gpu."""
    kind = request.param
    with contextlib.ExitStack() as stack:
        if kind == "cuda":
            stack.enter_context(cuda_bed.both())
        try:
            device = stack.enter_context(extmem.open_device(kind=kind))
        except extmem.UnsupportedError:
            pytest.skip("no Vulkan device here")
        yield tagged_payloads.World(device)


@pytest.mark.timeout(300)
@pytest.mark.parametrize(
    ("world", "kind"),
    _parameters(),
    indirect=["world"],
)
@pytest.mark.parametrize(
    "most",
    [
        pytest.param(FEW, id="drawn"),
        pytest.param(MOST, id="many", marks=pytest.mark.slow("tries thousands of combinations")),
    ],
)
def test_operations_in_threads_work_on_their_own_object_or_refuse(
    world: tagged_payloads.World, kind: str, most: dict[str, int]
) -> None:
    case = operations.case(world, kind)
    if case is None and world.device.kind == "vulkan":
        pytest.skip(f"the driver reports beforehand that it cannot make objects of the class {kind}")
    assert case is not None
    count = most[world.device.kind]
    count //= _SELDOM.get(kind, 1)
    found = rounds.Findings()
    with no_leaks(), rounds.switching_often(), rounds.churn(world), rounds.Crew(2) as two, rounds.Crew(3) as three:
        for names in rounds.combinations(case, seed=13, most=count):
            found += rounds.race(world, case, names, two if len(names) == 2 else three)
    assert not found.wrong and not found.escaped, "\n".join(found.wrong + found.escaped)
    assert found.rounds


@pytest.mark.parametrize("world", ["host", "cuda"], indirect=True)
def test_the_table_lists_the_classes_that_a_device_lacks(world: tagged_payloads.World) -> None:
    lacking = {kind for kind in operations.CLASSES if operations.case(world, kind) is None}
    assert lacking == LACKING[world.device.kind]


@pytest.mark.linux_only("file descriptors carry memory on Linux alone")
@pytest.mark.parametrize("world", ["host"], indirect=True)
def test_an_operation_that_uses_a_bare_number_is_found_out(
    world: tagged_payloads.World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """This also shows that an operation that is added to a class takes part without an edit."""

    def planted(memory: DeviceMemory) -> bytes:
        fd = memory.record.allocation.fd
        time.sleep(0)
        return os.pread(fd or -1, tagged_payloads.SIZE, 0)

    monkeypatch.setattr(DeviceMemory, "planted", planted, raising=False)
    case = operations.case(world, "DeviceMemory")
    assert case is not None and ("close", "planted") in set(rounds.combinations(case, seed=1))
    found = rounds.Findings()
    with rounds.switching_often(), rounds.churn(world), rounds.Crew(2) as crew:
        while not found.wrong and found.rounds < 20_000:
            found += rounds.race(world, case, ("close", "planted"), crew)
    assert found.wrong, f"{found.rounds} rounds, and nothing was seen"


@pytest.mark.parametrize("world", ["host"], indirect=True)
def test_an_operation_that_has_no_call_is_found_out(
    world: tagged_payloads.World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(DeviceMemory, "added", lambda memory, what: what, raising=False)
    case = operations.case(world, "DeviceMemory")
    assert case is not None
    with pytest.raises(AssertionError, match=r"DeviceMemory\.added to CALLS .* takes what"):
        operations.operations_of(case)


def test_switching_often_ends() -> None:
    before = sys.getswitchinterval()
    with rounds.switching_often():
        assert sys.getswitchinterval() < before
    assert sys.getswitchinterval() == before
