"""Every operation of shared arrays with its n-th call failing: a clear error, nothing left, and the rest is intact.

The descriptor table is also really full, for each number of descriptors that are free, in a process of its own.
"""

from __future__ import annotations

import contextlib
import errno
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import extmem
from extmem.api import Device
from extmem.testing import faults
from extmem.testing.children import Peer
from tests import systems
from tests.faults.sharing_world import OF_THE_BROKER, OPERATIONS, SharingWorld

NAMES = [systems.on_linux(name) if name in OF_THE_BROKER else name for name in OPERATIONS]
RESTORED = frozenset(OPERATIONS) - {"keep and forget", "pickle a part", "pickle a tree", "load a file without a name"}
"""Operations that succeed although the broker is killed. What the broker alone holds ends with it."""
WITHOUT_REQUESTS = {"save a file"}


@pytest.fixture
def world(device: Device, tmp_path: Path) -> Iterator[SharingWorld]:
    with contextlib.ExitStack() as stack:
        made = SharingWorld(device, stack, tmp_path)
        made.check()  # maps what is mapped once
        yield made


@pytest.mark.parametrize("code", [errno.EMFILE, errno.ENOMEM])
@pytest.mark.parametrize("operation", NAMES)
def test_every_system_call(operation: str, code: int, world: SharingWorld) -> None:
    OPERATIONS[operation](world)  # loads what is loaded once
    failed = faults.fail_each(
        lambda: OPERATIONS[operation](world),
        lambda countdown: faults.failing_system_calls(countdown, code),
        check=world.check,
        allowed=(extmem.ExtmemError, OSError),
    )
    if operation in ("share an array", "share a tree", "share a part", "load a file", "replace"):
        assert failed


@pytest.mark.linux_only("Windows has no broker")
@pytest.mark.parametrize("moment", ["before", "after"])
@pytest.mark.parametrize("operation", list(OPERATIONS))
def test_the_broker_is_killed_at_every_request(operation: str, moment: Any, world: SharingWorld) -> None:
    def run() -> None:
        try:
            OPERATIONS[operation](world)
        except extmem.ExtmemError as error:
            if operation in RESTORED:
                raise AssertionError(f"{operation} should have outlived the broker") from error
            raise

    failed = faults.fail_each(run, lambda countdown: faults.killing_broker(countdown, moment), check=world.check)
    assert failed or operation in WITHOUT_REQUESTS


FULL = """
import contextlib, os, pathlib, pickle, resource
import extmem
from extmem.testing import leaks
from tests.faults.sharing_world import OPERATIONS, SharingWorld

def prepare(folder):
    global world, stack
    stack = contextlib.ExitStack()
    device = stack.enter_context(extmem.open_device(kind='host'))
    world = SharingWorld(device, stack, pathlib.Path(folder))
    world.check()

def use_numpy(memory):
    with memory:
        memory.numpy()['w'][0]

def read_stable(name):
    with extmem.open(name) as opened, opened.stable(timeout=20):
        opened['w'].read()

def wait(name):
    with extmem.open(name) as opened, contextlib.suppress(extmem.WaitTimeoutError):
        opened.wait(timeout=0)

FAR = {
    'open a tree': lambda name, data: use_numpy(extmem.open(name)),
    'open with a timeout': lambda name, data: extmem.open(name, timeout=20).close(),
    'unpickle a tree': lambda name, data: use_numpy(pickle.loads(data)),
    'read what is stable': lambda name, data: read_stable(name),
    'wait for an update': lambda name, data: wait(name),
}

def attempt(operation, free, name, data):
    # Return the error with so many free descriptors; None if there is none.
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    run = FAR.get(operation) or (lambda name, data: OPERATIONS[operation](world))
    with leaks.no_leaks():
        taken = []
        error = None
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, (max(map(int, os.listdir('/proc/self/fd'))) + 80, hard))
            try:
                while True:
                    taken.append(os.open('/dev/null', os.O_RDONLY))
            except OSError:
                pass
            for _ in range(free):
                os.close(taken.pop())
            try:
                run(name, data)
            except (extmem.ExtmemError, OSError) as caught:
                error = f'{type(caught).__name__}: {caught}'
                caught.__traceback__ = caught.__context__ = caught.__cause__ = None
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
            while taken:
                os.close(taken.pop())
        world.check()
    return error
"""
MOST = 60
"""Free descriptors with which every operation succeeds."""
OPENING = ("open a tree", "open with a timeout", "unpickle a tree", "read what is stable", "wait for an update")
"""Operations on memory of another process."""
LOCAL = ("share an array", "share a tree", "share a part", "open a copy", "wait for a name", "keep and forget",
         "replace", "update", "load a file", "save a file")  # fmt: skip


@pytest.mark.linux_only("Windows limits no handles")
@pytest.mark.parametrize("operation", [*OPENING, *LOCAL])
def test_a_full_descriptor_table_at_every_step(operation: str, tmp_path: Path) -> None:
    with SharingAway() as far, Peer() as full:
        full(FULL, deadline=60)
        full("prepare(folder)", folder=str(tmp_path))
        errors = []
        for free in range(-1, MOST):  # the first time with enough, which loads what is loaded once
            data = far.pickled()
            found = full(
                "attempt(operation, free, name, data)",
                operation=operation, free=MOST if free < 0 else free, name=far.name, data=data, deadline=120,
            )  # fmt: skip
            if found is None and free >= 0:
                break
            if free >= 0:
                errors.append(found)
        else:
            raise AssertionError(f"{operation} never succeeds: {errors[-1]}")
    assert errors, f"{operation} needs no file descriptor"
    for error in errors:
        assert "descriptor" in error or "Too many open files" in error, error


class SharingAway:
    """Named arrays that another process shares."""

    name = "sharing faults far away"

    def __init__(self) -> None:
        self._peer = Peer()

    def __enter__(self) -> SharingAway:
        self._peer.__enter__()
        self._peer("import extmem, numpy, pickle")
        self._peer("memory = extmem.share({'w': numpy.arange(300)}, name)", name=self.name)
        return self

    def __exit__(self, *exception: Any) -> None:
        self._peer.__exit__(*exception)

    def pickled(self) -> bytes:
        """Return a new pickle of the memory."""
        return bytes(self._peer("pickle.dumps(memory)"))
