"""An exception of a signal handler loses nothing, wherever in an operation it is raised: see `points`.

Here it is raised at a few points of each operation, drawn from a seed; `make soak` tries many more points.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import extmem
from extmem.api import DeviceMemory
from extmem.handles import FdHandle
from extmem.owning import OwnedFd
from extmem.testing.children import Child
from extmem.testing.runtime import Runtime
from tests import operations, tagged_payloads
from tests.interrupts import points

pytestmark = [
    pytest.mark.linux_only("Windows has only Ctrl-C, and no signal that a process can send to itself"),
    pytest.mark.skipif(points.compiler() is None, reason="no C compiler"),
]
FEW = 4
"""The number of points of each operation at which an exception is raised."""
ROOT = Path(__file__).parents[2]


@pytest.fixture
def world(request: pytest.FixtureRequest) -> Iterator[tagged_payloads.World]:
    """A device of the kind that the test requests, which has been used: what is made only once exists already."""
    try:
        device = extmem.open_device(kind=request.param)
    except extmem.UnsupportedError:
        pytest.skip("no Vulkan device here")
    with device:
        device.allocate(1).close()
        yield tagged_payloads.World(device)


@pytest.mark.timeout(300)
@pytest.mark.parametrize(
    ("device", "kind"),
    [
        (device, kind)
        for device in ("host", "vulkan")
        for kind in operations.CLASSES
        if device == "host" or kind not in operations.OF_THE_HOST
    ],
)
def test_nothing_is_lost_where_an_operation_is_interrupted(
    request: pytest.FixtureRequest, own_runtime: Runtime, device: str, kind: str
) -> None:
    """It runs in a process of its own, where a reference in flight of an interrupted pickle ends after a short time."""
    if device == "vulkan":
        request.getfixturevalue("vulkan_device")  # skips where there is no driver
    environment = {**own_runtime.environment, "EXTMEM_TICKET_SECONDS": "1"}
    options = ["--kind", device, "--object", kind, "--few", str(FEW)]
    with Child([sys.executable, "-m", "tests.interrupts", *options], env=environment, cwd=ROOT) as child:
        child.wait(expect=None, deadline=280)
        output = child.output
    figures = json.loads(output.splitlines()[-1])
    found = {what: times for what, times in figures.items() if times and what != "interrupts"}
    assert child.process.returncode == 0 and figures["interrupts"] and not found, output


def _last(listed: list[int]) -> list[int]:
    return listed[-16:]


@pytest.mark.parametrize("world", ["host"], indirect=True)
@pytest.mark.parametrize("open_fd", [extmem.Device.open, lambda _, handle: extmem.open(handle)], ids=["device", "open"])
def test_an_fd_is_consumed_only_if_the_caller_gets_the_memory(
    world: tagged_payloads.World, monkeypatch: pytest.MonkeyPatch, open_fd: operations.Operation
) -> None:
    case = operations.case(world, "FdHandle")
    assert case is not None
    monkeypatch.setitem(operations.CALLS, (FdHandle, "same_object"), lambda s: open_fd(world.device, s.thing))
    found = points.interrupt(world, case, "same_object", _last)
    assert found.interrupts and not found.lost and not found.escaped and not found.wrong


@pytest.mark.parametrize("world", ["host"], indirect=True)
def test_an_fd_that_is_consumed_too_early_is_found_out(
    world: tagged_payloads.World, monkeypatch: pytest.MonkeyPatch
) -> None:
    def planted(scene: operations.Scene) -> DeviceMemory:
        copy = world.device.open(scene.thing)
        return copy if len(repr(copy)) else copy

    case = operations.case(world, "FdHandle")
    assert case is not None
    monkeypatch.setitem(operations.CALLS, (FdHandle, "same_object"), planted)
    found = points.interrupt(world, case, "same_object", _last)
    assert found.escaped


def _all(listed: list[int]) -> list[int]:
    return listed


@pytest.mark.parametrize("world", ["host"], indirect=True)
def test_an_operation_that_loses_what_it_took_is_found_out(
    world: tagged_payloads.World, monkeypatch: pytest.MonkeyPatch
) -> None:
    def planted(memory: DeviceMemory) -> FdHandle:
        fd = os.dup(memory.record.allocation.fd or -1)
        return FdHandle(fd)

    monkeypatch.setattr(points, "_PATIENCE", 0.2)
    monkeypatch.setattr(DeviceMemory, "planted", planted, raising=False)
    case = operations.case(world, "DeviceMemory")
    assert case is not None
    found = points.interrupt(world, case, "planted", _all)
    assert any("fd: " in thing for thing in found.lost) and not found.closed_twice


@pytest.mark.parametrize("world", ["host"], indirect=True)
def test_an_event_loop_of_an_operation_is_not_interrupted(
    world: tagged_payloads.World, monkeypatch: pytest.MonkeyPatch
) -> None:
    def planted(memory: DeviceMemory) -> bytes:
        asyncio.run(asyncio.sleep(0))
        return memory.read_bytes()

    monkeypatch.setattr(DeviceMemory, "planted", planted, raising=False)
    case = operations.case(world, "DeviceMemory")
    assert case is not None
    found = points.interrupt(world, case, "planted", lambda listed: [*listed[:60], *listed[-10:]])
    assert found.interrupts and not found.all


def test_asyncio_alone_is_told_from_asyncio_that_extmem_uses(monkeypatch: pytest.MonkeyPatch) -> None:
    async def alone() -> bool:
        return points._is_asyncio_alone(sys._getframe())

    assert not points._is_asyncio_alone(sys._getframe())
    assert asyncio.run(alone())
    monkeypatch.setattr(points, "_EXTMEM", __file__)
    assert not asyncio.run(alone())


@pytest.mark.parametrize("world", ["host"], indirect=True)
def test_an_operation_that_closes_a_number_twice_is_found_out(
    world: tagged_payloads.World, monkeypatch: pytest.MonkeyPatch
) -> None:
    def planted(memory: DeviceMemory) -> None:
        owned = OwnedFd(os.dup(memory.record.allocation.fd or -1))
        os.close(owned.fd)
        owned.disown()

    monkeypatch.setattr(points, "_PATIENCE", 0.2)
    monkeypatch.setattr(DeviceMemory, "planted", planted, raising=False)
    case = operations.case(world, "DeviceMemory")
    assert case is not None
    assert points.interrupt(world, case, "planted", _all).closed_twice


@pytest.mark.parametrize("world", ["host"], indirect=True)
def test_an_operation_after_which_a_warning_is_logged_is_found_out(
    world: tagged_payloads.World, monkeypatch: pytest.MonkeyPatch
) -> None:
    def planted(memory: DeviceMemory) -> None:
        logging.getLogger("extmem.broker").warning("giving back %s: planted", 7)

    monkeypatch.setattr(DeviceMemory, "planted", planted, raising=False)
    case = operations.case(world, "DeviceMemory")
    assert case is not None
    found = points.interrupt(world, case, "planted", _all)
    assert "WARNING of extmem.broker: giving back 7: planted" in found.escaped and not found.lost


@pytest.mark.parametrize("world", ["host"], indirect=True)
def test_an_operation_that_takes_and_records_in_one_call_loses_nothing(
    world: tagged_payloads.World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The twin of the two tests above."""

    def planted(memory: DeviceMemory) -> FdHandle:
        with memory.use() as record:
            return FdHandle(OwnedFd.of(os.dup, record.allocation.fd))

    monkeypatch.setattr(DeviceMemory, "planted", planted, raising=False)
    case = operations.case(world, "DeviceMemory")
    assert case is not None
    found = points.interrupt(world, case, "planted", _all)
    assert found.interrupts > 20 and not found.all


def test_the_points_of_a_function_are_the_ends_of_its_calls_and_turns() -> None:
    def run() -> None:
        for _ in (1, 2):
            os.getpid()

    others = len(points.points(lambda: None))
    assert len(points.points(run)) - others == 2 * 2, "twice a call, and twice a jump back"
