"""S59: kill -9 of who waits, imports temporarily, sends, or has submitted: those who are left go on, and nothing stays.

`test_sync_deaths` has those who signal. The devices are the host's and a scripted Vulkan driver's.
"""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Callable, Iterator
from dataclasses import replace

import pytest

import extmem
from extmem.api import Device
from extmem.handles import FdHandle
from extmem.testing import fake_vulkan
from extmem.testing.children import Peer
from extmem.testing.leaks import descriptors, mappings
from extmem.testing.runtime import Runtime
from extmem.testing.waiting import wait_until
from extmem.vk.handle_types import SEMAPHORE_OPAQUE_FD, SEMAPHORE_OPAQUE_WIN32

pytestmark = pytest.mark.linux_only("there is no broker on Windows; tests of the host device there have their own")

SETUP = """
import asyncio, os, pickle, threading
import extmem
from extmem import vk
from extmem.errors import PeerGoneError
from extmem.manager import manager
device = {opening}

def outcome(call, *values, **options):
    # What a wait ends with.
    try:
        call(*values, **options)
    except Exception as error:
        return type(error).__name__, str(error)
    return "reached", ""

def held():
    # What the broker, and this process, hold.
    now = manager().status()
    return now.payloads, now.fds, threading.active_count(), len(os.listdir("/proc/self/fd"))

def wait_async(timeline, value):
    asyncio.run(timeline.wait_async(value, timeout=30))

def submit_wait(timeline, value, signaled):
    values = vk.TimelineSemaphoreSubmitInfo((value,), (signaled,))
    stages = (vk.PipelineStageFlagBits.ALL_COMMANDS,)
    device.queue_submit([vk.SubmitInfo((timeline,), stages, (), (timeline,), values)])
None
"""
HOST = "extmem.open_device(kind='host')"
BLOCKED = {
    "wait": "opened.wait(9)",
    "wait_async": "asyncio.run(opened.wait_async(9))",
    "wait_any": "extmem.wait_any([(opened, 9), (opened, 10)])",
    "submission": "submit_wait(opened, 9, 10)",
}
"""What a process is killed in."""
Start = Callable[..., Peer]


@pytest.fixture
def start(own_runtime: Runtime) -> Iterator[Start]:
    """Starts processes that share one broker."""
    with contextlib.ExitStack() as stack:

        def started(opening: str = HOST) -> Peer:
            peer = stack.enter_context(Peer(env=own_runtime.environment))
            peer(SETUP.format(opening=opening))
            return peer

        yield started


def kill(peer: Peer) -> int:
    """Kill the process, and return its pid when it has ended."""
    os.kill(peer.pid, signal.SIGKILL)
    peer.process.wait()
    return peer.pid


def scripted(shared: tuple[fake_vulkan.ExternalSync, ...]) -> str:
    """Return the expression that opens a device of a scripted driver."""
    fake = fake_vulkan.FakeVulkan([replace(fake_vulkan.DISCRETE, sync=shared)])
    return fake_vulkan.elsewhere(fake)


OPENINGS = {
    "host": HOST,
    "driver": scripted(fake_vulkan.SHARED_SYNC),
    "bridged": scripted(fake_vulkan.BINARY_SYNC),
}
"""The devices: the host, a driver that shares timelines, and one whose timelines are the host's."""


@pytest.fixture(params=OPENINGS)
def opening(request: pytest.FixtureRequest) -> str:
    return OPENINGS[request.param]


@pytest.mark.parametrize("how", BLOCKED)
def test_S59_a_waiter_is_killed_and_leaves_nothing(start: Start, opening: str, how: str) -> None:
    owner, waiter = start(opening), start(opening)
    owner("timeline = device.timeline(name='t')\ntimeline.signal(1)\ntimeline.wait(1)")
    before = owner("held()")
    waiter("opened = extmem.open_timeline('t', device=device)\nopened.wait(1, timeout=20)")
    waiter.start(BLOCKED[how])
    kill(waiter)
    wait_until(lambda: owner("held()") == before, "the end of what the waiter held")
    # It signaled nothing, so nobody is told of its end, and the owner's waits and signals go on.
    assert owner("timeline.signal(9)\ntimeline.wait(9, timeout=20)\ntimeline.peer_gone, timeline.value") == (None, 9)


@pytest.mark.parametrize("how", ["timeline.wait, 5, timeout=30", "wait_async, timeline, 5"])
@pytest.mark.parametrize("when", ["before it signals", "after a signal", "with a submission that waits"])
def test_S59_the_creator_is_killed(start: Start, opening: str, when: str, how: str) -> None:
    creator, survivor = start(opening), start(opening)
    creator("timeline = device.timeline(name='t')")
    survivor("timeline = extmem.open_timeline('t', device=device)")
    if when != "before it signals":
        creator("timeline.signal(1)")
        survivor("timeline.wait(1, timeout=20)")
    if when == "with a submission that waits":
        creator.start("submit_wait(timeline, 4, 5)")
    survivor.start(f"outcome({how})")
    pid = kill(creator)
    kind, message = survivor.finish()
    assert kind == "PeerGoneError" and f"process {pid}" in message, message
    # The survivor repairs, and the value is marked as its own.
    assert survivor("timeline.signal(5)\ntimeline.wait(5, timeout=20)\ntimeline.value") == 5
    assert survivor("timeline.peer_gone.pid, timeline.repaired") == (pid, True)
    # The payload lives on for others by its name, and ends with its last object.
    assert survivor("with extmem.open_timeline('t', device=device) as again: value = again.value\nvalue") == 5
    survivor("timeline.close()")
    assert survivor("outcome(extmem.open_timeline, 't', device=device)[0]") == "NameNotFoundError"


@pytest.mark.parametrize("kind", ["semaphore", "fence"])
def test_S59_the_holder_of_a_temporary_import_is_killed(start: Start, kind: str) -> None:
    owner, holder = start(), start()
    title, word = kind.capitalize(), "export_info"
    owner(
        f"{word} = vk.Export{title}CreateInfo(0x2, vk.Export{title}Win32HandleInfoKHR(None, 0x1F0003, 'shared'))\n"
        f"made = device.create_{kind}(vk.{title}CreateInfo(p_next={word}))"
    )
    before = owner("held()")
    holder(f"target = device.create_{kind}(vk.{title}CreateInfo())")
    imports = f"device.import_{kind}_win32_handle(vk.Import{title}Win32HandleInfoKHR(target, 1, 0x2, None, 'shared'))"
    holder(imports)
    kill(holder)
    wait_until(lambda: owner("held()") == before, "the end of the temporary payload")
    if kind == "fence":
        owner("device.queue_submit([], made)\nmade.wait(20)\nmade.reset()")
    else:
        owner("signals = vk.SubmitInfo(signal_semaphores=(made,))\ndevice.queue_submit([signals])")
        owner("waits = vk.SubmitInfo((made,), (vk.PipelineStageFlagBits.ALL_COMMANDS,))\ndevice.queue_submit([waits])")
    other = start()
    other(f"target = device.create_{kind}(vk.{title}CreateInfo())\n{imports}")
    other("target.close()")


@pytest.mark.parametrize("claimed", [False, True])
def test_S59_the_sender_of_a_timeline_is_killed(start: Start, claimed: bool) -> None:
    sender, receiver = start(), start()
    data = sender("timeline = device.timeline()\ntimeline.signal(1)\npickle.dumps(timeline)")
    before = receiver("held()")
    if claimed:
        receiver("timeline = pickle.loads(data)\ntimeline.wait(1, timeout=20)", data=data)
    pid = kill(sender)
    if not claimed:
        receiver("timeline = pickle.loads(data)", data=data)
    kind, message = receiver("outcome(timeline.wait, 2, timeout=30)")
    # A ticket ends at the latest a minute after its sender; until then it still gives the payload.
    assert (kind == "PeerGoneError" and f"process {pid}" in message) or (not claimed and "Error" in kind), message
    receiver("timeline.close()")
    if claimed:
        wait_until(lambda: receiver("held()")[:2] <= before[:2], "the end of the payload")


def test_200_kills_leave_nothing_and_no_waiter_is_stuck(start: Start, own_runtime: Runtime) -> None:
    """Each round kills one that signals, in turn with one that waits."""
    owner = start()
    owner("timeline = device.timeline(name='t')\ntimeline.signal(1)")
    doomed_source = "opened = extmem.open_timeline('t')\nopened.wait(1)"
    owner("timeline.wait(1)")
    before = owner("held()")
    forks = """
import signal, time
def round(number):
    # A process without a GPU context is started by fork: it opens the timeline by itself, and is killed.
    reading, writing = os.pipe()
    pid = os.fork()
    if pid == 0:
        with extmem.open_timeline('t') as opened:
            if number % 2:
                opened.signal(opened.value + 1)
            os.write(writing, b"1")
            opened.wait(10 ** 6 + number)
        os._exit(0)
    os.close(writing)
    os.read(reading, 1)
    os.close(reading)
    os.kill(pid, 9)
    os.waitpid(pid, 0)
    if not number % 2:
        return "waiter"
    kind, message = outcome(waiting.wait, waiting.value + 1, timeout=30)
    assert f"process {pid}" in message, message
    waiting.signal(waiting.value + 1)
    return kind
"""
    killer = start()
    killer(f"{doomed_source}\nwaiting = opened{forks}None")
    held = owner("held()")
    for number in range(200):
        assert killer("round(number)", number=number) == ("PeerGoneError" if number % 2 else "waiter")
    wait_until(lambda: owner("held()") == held, "the end of the dead")
    killer("opened.close()")
    killer.leave()
    wait_until(lambda: owner("held()") == before, "the end of the last process")
    own_runtime.kill_broker(required=False)


@pytest.mark.parametrize("handle_type", [SEMAPHORE_OPAQUE_WIN32, SEMAPHORE_OPAQUE_FD, None])
def test_4096_imports_of_a_timeline_leave_nothing(device: Device, handle_type: int | None) -> None:
    with device.timeline(name="many") as timeline, contextlib.ExitStack() as stack:
        handle = None if handle_type is None else stack.enter_context(timeline.export_handle(handle_type))
        before, mapped = len(descriptors()), sum(mappings().values())
        # Each import of an fd needs one of its own, as it consumes it: the number stays below the usual limit of 1024.
        count = 128 if isinstance(handle, FdHandle) else 4096
        imports = []
        for _ in range(count):
            source = handle.duplicate() if isinstance(handle, FdHandle) else handle or "many"
            imports.append(stack.enter_context(extmem.open_timeline(source, device=device)))  # type: ignore[arg-type]
        timeline.signal(3)
        imports[0].wait(3, timeout=20)
        assert imports[-1].value == 3
        for _ in range(count):
            imports.pop().close()
        assert len(descriptors()) <= before and sum(mappings().values()) <= mapped
