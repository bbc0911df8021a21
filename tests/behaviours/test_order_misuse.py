"""Misuses of semaphores, timelines and fences: each is refused by a clear error, and the caller loses nothing."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator
from typing import Any

import pytest

import extmem
from extmem import raw, vk
from extmem.api import Device
from extmem.errors import ExtmemError
from tests import systems
from tests.sync_operations import FenceType, SemaphoreType, fence_info, semaphore_info

MEMORY_FD = vk.ExternalMemoryHandleTypeFlagBits.OPAQUE_FD
_ALL = vk.PipelineStageFlagBits.ALL_COMMANDS
PERMANENT, TEMPORARY = vk.SemaphoreImportFlagBits(0), vk.SemaphoreImportFlagBits.TEMPORARY


class Scene:
    """A timeline at 5, with a name; a binary semaphore, a fence and memory; an fd of each, and one of another file."""

    def __init__(self, device: Device, name: str, stack: contextlib.ExitStack) -> None:
        keep = stack.enter_context
        self.device, self.name = device, name
        self.timeline: Any = keep(device.timeline(5, name=name))
        self.reader: Any = keep(extmem.open_timeline(name, device=device, access=extmem.Access.READ))
        self.binary: Any = keep(device.create_semaphore(semaphore_info(device)))
        self.alone: Any = keep(device.create_semaphore(vk.SemaphoreCreateInfo()))
        self.fence: Any = keep(device.create_fence(fence_info(device, signaled=False)))
        self.memory: Any = keep(device.allocate(64, name=f"{name} memory"))
        self.fds: dict[str, Any] = {}
        if systems.HERE == "linux":
            self.fds = {
                "timeline": keep(self.timeline.export_handle(SemaphoreType.OPAQUE_FD)),
                "binary": keep(self.binary.export_handle(SemaphoreType.OPAQUE_FD)),
                "fence": keep(self.fence.export_handle(FenceType.OPAQUE_FD)),
                "memory": keep(self.memory.export_handle(MEMORY_FD)),
                "null": keep(raw.fd_handle(os.open(os.devnull, os.O_RDWR))),
            }

    def check(self) -> None:
        """Check that everything is as it was."""
        assert self.timeline.value == self.reader.value == 5 and not self.fence.signaled
        assert not any(fd.closed for fd in self.fds.values()), "a refused fd is the caller's"
        for fd in self.fds.values():
            os.fstat(int(fd))


@pytest.fixture
def scene(device: Device, name: str) -> Iterator[Scene]:
    with contextlib.ExitStack() as stack:
        yield Scene(device, name, stack)


def _import(scene: Scene, target: Any, fd: Any, flags: Any = PERMANENT) -> None:
    scene.device.import_semaphore_fd(vk.ImportSemaphoreFdInfoKHR(target, flags, SemaphoreType.OPAQUE_FD, fd))


def _waits_for_itself(scene: Scene) -> None:
    values = vk.TimelineSemaphoreSubmitInfo([7], [7])
    scene.device.queue_submit([vk.SubmitInfo([scene.timeline], [_ALL], (), [scene.timeline], values)])


def _commands(scene: Scene, **order: Any) -> None:
    with scene.device.commands(**order):
        pass


Refused = tuple[Callable[[Scene], object], str]
REFUSED: dict[str, Refused] = {
    "a value that goes back": (lambda s: s.timeline.signal(4), "4 is not greater than 5, .* Signal a value greater"),
    "the current value": (lambda s: s.timeline.signal(5), "5 is not greater than 5"),
    "a value too far": (lambda s: s.timeline.signal(2**64 - 1), f"{2**64 - 1} differs from .* 5, .*Raise .* in steps"),
    "a value beyond 64 bits": (lambda s: s.timeline.signal(2**64), f"value is {2**64}.* give a value from 0 to"),
    "a wait beyond 64 bits": (lambda s: s.timeline.wait(2**64), f"value is {2**64}.* give a value from 0 to"),
    "a negative value": (lambda s: s.timeline.wait(-1), "value is -1"),
    "no right to signal": (lambda s: s.reader.signal(6), r"without the right to signal .* open it with"),
    "commands without the right": (lambda s: _commands(s, signal=(s.reader, 6)), "without the right to signal"),
    "a submit that waits for itself": (_waits_for_itself, "7, which is not greater than 7, .* waits for before"),
    "commands that wait for themselves": (
        lambda s: _commands(s, wait=(s.timeline, 7), signal=(s.timeline, 7)),
        "7, which is not greater than 7",
    ),
    "a wait for a binary semaphore that nobody can signal": (
        lambda s: s.device.queue_submit([vk.SubmitInfo([s.alone], [_ALL], ())]),
        "would not end: it is unsignaled, .* Submit the signal before",
    ),
    "a host wait for a binary semaphore": (
        lambda s: extmem.wait_any([(s.alone, 1)]),
        r"waits\[0\] has .*, which is binary: the host waits for timelines alone",
    ),
    "a host wait for a fence among timelines": (lambda s: extmem.wait_all([(s.fence, 1)]), r"waits\[0\] has .*Fence"),
    "the name of memory": (
        lambda s: extmem.open_timeline(f"{s.name} memory"),
        "DxgkSharedResource.*(Import it as shared memory|a shared semaphore is needed.*[Ii]mport it)",
    ),
    "the name of a timeline as memory": (
        lambda s: extmem.open(s.name),
        "(not DxgkSharedResource. .*open_timeline|shared memory is needed.*[Ii]mport it)",
    ),
    "no rights": (lambda s: extmem.open_timeline(s.name, access=0), "no access .* Request 0x80000000"),
    "no such name": (
        lambda s: extmem.open_timeline(f"{s.name} other"),
        "(No live object is named|No object has the name)",
    ),
    "no such handle": (lambda s: extmem.open_timeline(raw.nt_handle(0x7FFC)), "0x7ffc"),
    "a SYNC_FD of a timeline": (
        lambda s: s.device.timeline(handle_types=int(SemaphoreType.SYNC_FD)),
        "cannot be exported as SYNC_FD|cannot be exported",
    ),
}
OF_FDS: dict[str, Refused] = {
    "memory's fd": (lambda s: extmem.open_timeline(s.fds["memory"]), "is of memory .*, by extmem.open or"),
    "a timeline's fd as memory": (
        lambda s: s.device.open(s.fds["timeline"]),
        "is of a semaphore .*, by extmem.open_tim",
    ),
    "a fence's fd": (lambda s: extmem.open_timeline(s.fds["fence"]), "is a fence, and a semaphore is imported here"),
    "a binary semaphore's fd": (
        lambda s: extmem.open_timeline(s.fds["binary"]),
        "is a binary semaphore, and a timeline",
    ),
    "another file": (lambda s: extmem.open_timeline(s.fds["null"]), "is a character device, .* was exported"),
    "another file, imported": (lambda s: _import(s, s.binary, s.fds["null"]), "is a device, .* exported from one"),
    "a timeline into a binary": (lambda s: _import(s, s.binary, s.fds["timeline"]), "from a timeline one"),
    "a binary into a timeline": (lambda s: _import(s, s.timeline, s.fds["binary"]), "from a binary one"),
    "a timeline for a while": (lambda s: _import(s, s.timeline, s.fds["timeline"], TEMPORARY), "has TEMPORARY"),
    "fd -1": (lambda s: _import(s, s.binary, -1), "fd -1 is not open .* pass one that is"),
    "a closed fd": (lambda s: _import(s, s.binary, 99_999), "fd 99999 is not open .* pass one that is"),
}


def refused(scene: Scene, call: Callable[[Scene], object], words: str) -> None:
    with pytest.raises((ExtmemError, TypeError, ValueError), match=f"(?s){words}") as caught:
        call(scene)
    assert str(caught.value).strip()
    scene.check()


@pytest.mark.parametrize("misuse", REFUSED)
def test_a_misuse_is_refused_and_changes_nothing(scene: Scene, misuse: str) -> None:
    refused(scene, *REFUSED[misuse])


@pytest.mark.linux_only("Windows has no fds")
@pytest.mark.parametrize("misuse", OF_FDS)
def test_S16_S26_S60_S61_a_wrong_fd_is_refused_and_stays_the_callers(scene: Scene, misuse: str) -> None:
    refused(scene, *OF_FDS[misuse])


def test_right_uses_are_taken(scene: Scene) -> None:
    """The twin of the misuses above."""
    scene.timeline.signal(6)
    scene.reader.wait(6, timeout=10)
    _commands(scene, wait=(scene.timeline, 6), signal=(scene.timeline, 7))
    scene.device.queue_submit([vk.SubmitInfo((), (), (), [scene.alone])], scene.fence)
    scene.device.queue_submit([vk.SubmitInfo([scene.alone], [_ALL], ())])
    assert scene.reader.value == 7 and scene.fence.signaled
    for kind, target in (("timeline", scene.timeline), ("binary", scene.binary)):
        if scene.fds:
            _import(scene, target, scene.fds[kind])
            assert scene.fds[kind].closed


@pytest.mark.parametrize("order", ["wait", "signal", "fence"])
def test_refused_commands_hold_nothing(scene: Scene, order: str) -> None:
    """The error, and with it the traceback, is kept: the timeline ends nevertheless when it is closed."""
    good = (scene.timeline, 6)
    wrong: dict[str, Any] = {
        "wait": {"wait": [good, (scene.timeline, -1)]},
        "signal": {"wait": good, "signal": (scene.reader, 6)},
        "fence": {"wait": good, "fence": scene.timeline},
    }
    with pytest.raises((TypeError, ValueError, ExtmemError)) as kept:
        scene.device.commands(**wrong[order])
    for one in (scene.timeline, scene.reader):
        one.close()
    with pytest.raises(extmem.NameNotFoundError):
        extmem.open_timeline(scene.name)
    assert kept.value is not None
