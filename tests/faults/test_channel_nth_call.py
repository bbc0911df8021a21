"""Every operation of channels with its n-th call failing, and with the broker killed at each of its requests.

After each failure there is a clear error, nothing is left, and what the caller held is intact and usable.
"""

from __future__ import annotations

import contextlib
import errno
import itertools
import os
import pickle
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest

import extmem
from extmem import ChannelReader
from extmem.errors import ChannelFullError
from extmem.testing import faults

pytestmark = pytest.mark.linux_only("it lets calls of Linux fail, and kills the broker")
_numbers = itertools.count(1)
_SLOTS = 3


class ChannelWorld:
    """What the caller holds before the operation. All of it must be usable after every failure."""

    def __init__(self, stack: contextlib.ExitStack) -> None:
        self.name = f"channel faults {os.getpid()} {next(_numbers)}"
        self.writer = stack.enter_context(
            extmem.create_channel(self.name, 8, "uint8", slots=_SLOTS, max_slots=16, when_full="raise", max_reliable=2)
        )
        self.reader = stack.enter_context(extmem.open_channel(self.name, max_held=4))

    def fresh(self) -> str:
        """Return a name that no earlier run of the operation had."""
        return f"{self.name} {next(_numbers)}"

    def check(self) -> None:
        """Write and read more frames than there are slots, of which none may be locked by now."""
        for _ in range(2 * _SLOTS):
            number = _put(self.writer)
            frame = self.reader.read(timeout=20)
            assert (frame.number, frame.tobytes()) == (number, bytes([number % 256]) * 8)
        frame.release()
        assert self.reader.held == 0
        assert [one.place for one in self.writer.info.readers] == [2]


def _put(writer: extmem.ChannelWriter) -> int:
    with writer.write() as frame:
        frame.view()[:] = bytes([(writer.count + 1) % 256]) * 8
    return frame.number


def _created(world: ChannelWorld) -> None:
    with extmem.create_channel(world.fresh(), {"a": (4, "int32"), "b": ((2, 3), "float32")}, slots=2) as made:
        made.put({"a": np.zeros(4, "int32"), "b": np.zeros((2, 3), "float32")})


def _opened(world: ChannelWorld) -> None:
    with extmem.open_channel(world.name, every=True, reliable=True) as opened:
        opened.poll()


def _written(world: ChannelWorld) -> None:
    _put(world.writer)
    with world.reader.read(timeout=20) as frame:
        assert frame.numpy().sum() == 8 * (frame.number % 256)


def _shown(world: ChannelWorld) -> None:
    _put(world.writer)
    with world.reader.read(timeout=20) as frame:
        assert frame.memory.read_bytes() == frame.tobytes()


def _reconfigured(world: ChannelWorld) -> None:
    with extmem.create_channel(world.fresh(), 8, slots=1) as writer, extmem.open_channel(writer.name) as reader:
        writer.reconfigure(16, slots=2)
        reader.poll()


def _grown(world: ChannelWorld) -> None:
    with extmem.create_channel(world.fresh(), 8, slots=1, max_slots=2, when_full="grow") as writer:
        with writer.write(), writer.write() as second:
            assert second.dropped == (writer.slots == 1)


def _full(world: ChannelWorld) -> None:
    with contextlib.ExitStack() as stack:
        try:
            for _ in range(_SLOTS + 1):
                frame = world.writer.write()
                stack.callback(frame.discard)
        except ChannelFullError as error:
            assert "are being written" in str(error)
            error.__traceback__ = None


def _pickled(world: ChannelWorld) -> None:
    received: ChannelReader = pickle.loads(pickle.dumps(world.writer))  # it was pickled in this line
    with contextlib.closing(received):
        if not received.closed:
            received.poll()


def _described(world: ChannelWorld) -> None:
    assert world.writer.info.slots == _SLOTS and world.reader.info.name == world.name


OPERATIONS: dict[str, Callable[[ChannelWorld], None]] = {
    "create": _created,
    "open": _opened,
    "write and read": _written,
    "the memory of a frame": _shown,
    "reconfigure": _reconfigured,
    "grow": _grown,
    "no slot is free": _full,
    "pickle": _pickled,
    "info": _described,
}
WITHOUT_REQUESTS = {"write and read", "the memory of a frame"}


@pytest.fixture
def world() -> Iterator[ChannelWorld]:
    with contextlib.ExitStack() as stack:
        made = ChannelWorld(stack)
        made.check()  # maps what is mapped once
        yield made


@pytest.mark.parametrize("code", [errno.EMFILE, errno.ENOMEM])
@pytest.mark.parametrize("operation", list(OPERATIONS))
def test_every_system_call(operation: str, code: int, world: ChannelWorld) -> None:
    OPERATIONS[operation](world)  # loads what is loaded once
    failed = faults.fail_each(
        lambda: OPERATIONS[operation](world),
        lambda countdown: faults.failing_system_calls(countdown, code),
        check=world.check,
        allowed=(extmem.ExtmemError, OSError),
    )
    assert failed or operation in WITHOUT_REQUESTS | {"info", "no slot is free"}


@pytest.mark.parametrize("moment", ["before", "after"])
@pytest.mark.parametrize("operation", list(OPERATIONS))
def test_the_broker_is_killed_at_every_request(operation: str, moment: Any, world: ChannelWorld) -> None:
    def run() -> None:
        try:
            OPERATIONS[operation](world)
        except extmem.ExtmemError as error:
            if operation in WITHOUT_REQUESTS:
                raise AssertionError(f"{operation} needs no broker") from error
            raise

    # What this process has opened for reading and for writing, it opens once more for the first new broker, and keeps.
    with contextlib.suppress(extmem.ExtmemError), faults.killing_broker(faults.Countdown(1), moment):
        OPERATIONS[operation](world)
    OPERATIONS[operation](world)
    world.check()
    failed = faults.fail_each(run, lambda countdown: faults.killing_broker(countdown, moment), check=world.check)
    assert failed or operation in WITHOUT_REQUESTS
