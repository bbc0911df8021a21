"""Part of `extmem bench channel`: frames that are read while writers and holders are killed at any moment.

How this works. A writer publishes frames of 1 MiB without a pause, each filled with a word of its own, which is its
metadata, too. Two readers compare every byte of a frame, hold it for up to 2 ms, and compare it again. A third process
holds a frame for good. In each round the writer or the holder is killed at a random moment and another one takes its
place, while the readers go on: a new writer takes the channel over. A frame whose bytes are not all those of its word
is torn.

At the end everybody is killed with -9. Then there may be no payload, no fd of the broker and no file that was not there
before. The files that iceoryx2 leaves when its publisher and its subscriber are killed in the same way are told beside
it; it removes them when another process opens a node.
"""

from __future__ import annotations

import itertools
import os
import random
import struct
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import extmem
from extmem.cli._bench.channel_bounds import bounded
from extmem.cli._bench.measure import Figure, unbounded

if sys.platform != "linux":
    raise ImportError("this benchmark counts fds by /proc of Linux")

from extmem.cli._bench.channel_deaths import Reserve
from extmem.cli._bench.channel_peers import ICEORYX, IOX_FOLDER, Iceoryx, remove_iceoryx
from extmem.cli._bench.environment import Environment
from extmem.cli._bench.machine import broker_of, descriptors_at_rest, descriptors_of
from extmem.cli._bench.waiting import wait_for

__all__ = ["Result", "figures", "storm"]

_SIZE = 1 << 20
_READERS = 2
_SLOTS = 2 + _READERS + 1
"""One is written, one is the newest, and each reader and the holder hold one."""
_HELD = 0.002
"""Seconds for which a reader holds a frame, at most."""
_WORD = struct.Struct("<II")
_PATIENCE = 60.0
_at: dict[str, Any] = {}


class Result(NamedTuple):
    """What a storm has counted."""

    reads: int = 0
    torn: int = 0
    writers: int = 0
    """Writers that were killed."""
    holders: int = 0
    """Readers that were killed while they held a frame."""
    frames: int = 0
    """The number of the last frame that was read."""
    payloads: int = 0
    descriptors: int = 0
    """Of the broker."""
    files: int = 0


def figures(
    env: Environment, missing: Mapping[str, str], kills: int, reads: int, report: Callable[[str], None]
) -> Iterator[Figure]:
    """Kill `kills` processes while `reads` frames are checked."""
    report(f"reading {reads} frames while {kills} writers and holders are killed")
    found = storm(env, kills, reads, random.Random(1), report)
    what = f"{found.writers + found.holders} kills"
    yield bounded("torn frames", f"torn frames of {found.reads} that were checked, over {what}", found.torn)
    for label, count in (
        ("payloads", found.payloads),
        ("fds of the broker", found.descriptors),
        ("files", found.files),
    ):
        yield bounded("left after kill -9", f"{label} left after {what}, and kill -9 of everybody", count)
    yield unbounded("writers killed", found.writers, "processes")
    yield unbounded("holders killed", found.holders, "processes")
    yield unbounded("frames written meanwhile", found.frames, "frames")
    if ICEORYX in missing:
        yield unbounded(f"files that iceoryx2 leaves: {missing[ICEORYX]}", 0, "not measured")
    else:
        yield unbounded("files that iceoryx2 leaves after kill -9 of everybody", _left_by_iceoryx(env), "files")


def _left_by_iceoryx(env: Environment) -> int:
    """Kill one process that sends and one that receives. Return the number of files that are left."""
    folder = str(env.directory)
    workers = [env.worker(title) for title in ("publisher", "subscriber")]
    for worker in workers:
        worker.call(f"{__name__}:use_iceoryx", folder, worker.title)
    for worker in workers:
        worker.process.kill()
        env.dismiss(worker)
    below = [path for path in Path(folder, IOX_FOLDER).rglob("*") if not path.is_dir()]
    return len(below) + remove_iceoryx(folder)


def storm(env: Environment, kills: int, reads: int, draw: random.Random, report: Callable[[str], None]) -> Result:
    """Read and kill. Return what was counted."""
    observer = env.worker("observer")
    payloads = observer.call(f"{__name__}:payloads")
    broker = broker_of(env.directory)
    descriptors, files = descriptors_at_rest(broker), _files(env.directory)
    name = env.name("storm")
    victims = [draw.choice(("writer", "holder")) for _ in range(kills)]
    writers = Reserve(env, "writer", victims.count("writer") + 1)
    holders = Reserve(env, "holder", victims.count("holder") + 1)
    writer, holder = writers.take(), holders.take()
    writer.start(f"{__name__}:write_forever", name)
    next(writer.stream())
    holder.call(f"{__name__}:hold_one", name)
    readers = [env.worker(f"reader {number}") for number in range(_READERS)]
    for reader in readers:
        reader.call(f"{__name__}:open_storm", name)
    share = -(-reads // (kills * _READERS))
    checked = torn = last = 0
    for number, victim in enumerate(victims):
        another = (writers if victim == "writer" else holders).take()
        for reader in readers:
            reader.start(f"{__name__}:check_frames", share, draw.random())
        time.sleep(draw.random() * share * _HELD / 2)
        if victim == "writer":
            writer.kill()
            env.dismiss(writer)
            writer = another
            writer.start(f"{__name__}:write_forever", name)
            next(writer.stream())
        else:
            holder.kill()
            env.dismiss(holder)
            holder = another
            holder.call(f"{__name__}:hold_one", name)
        for reader in readers:
            wrong, last = reader.finish()
            checked, torn = checked + share, torn + wrong
        if not (number + 1) % 20:
            report(f"{number + 1} killed, {checked} frames checked, {torn} torn")
    for worker in (writer, holder, *readers):
        worker.process.kill()
    for worker in (writer, holder, *readers):
        env.dismiss(worker)
    left = [0, 0, 0]

    def settled() -> bool:
        left[:] = [
            max(0, observer.call(f"{__name__}:payloads") - payloads),
            max(0, descriptors_of(broker) - descriptors),
            len(_files(env.directory) - files),
        ]
        return not any(left)

    if not wait_for(settled, 20.0):
        report("not everything was released within 20 s")
    env.dismiss(observer)
    return Result(checked, torn, victims.count("writer"), victims.count("holder"), last, *left)


def _files(folder: Path) -> set[Path]:
    return set(folder.rglob("*"))


# Tasks of the processes.


def payloads() -> int:
    """Observer: return the number of payloads. As a client it keeps the broker running."""
    from extmem.manager import manager

    return len(manager().snapshot())


def filled(word: bytes) -> bytes:
    """Return the bytes of a whole frame with this word."""
    return word * (_SIZE // _WORD.size)


def write_forever(name: str) -> Iterator[int]:
    """Writer: publish frames that are full of one word each, until the process is killed."""
    channel = extmem.create_channel(name, (_SIZE,), "uint8", slots=_SLOTS)
    for number in itertools.count():
        with channel.write() as frame:
            frame.meta = _WORD.pack(os.getpid(), number & 0xFFFFFFFF)
            frame.view()[:] = filled(frame.meta)
        if not number:
            yield os.getpid()


def hold_one(name: str) -> None:
    """Holder: hold a frame until the process is killed."""
    _at["channel"] = extmem.open_channel(name)
    _at["frame"] = _at["channel"].read(timeout=_PATIENCE).hold()


def open_storm(name: str) -> None:
    """Reader: open the channel, which goes on with another writer when one is gone."""
    _at["frames"] = iter(extmem.open_channel(name, reconnect=True))


def is_torn(frame: Any) -> bool:
    """Return whether not every byte of a frame is that of its word."""
    return bool(frame.tobytes() != filled(frame.meta))


def check_frames(count: int, seed: float) -> tuple[int, int]:
    """Reader: check `count` frames. Return how many were torn, and the number of the last one."""
    draw, torn, last = random.Random(seed), 0, 0
    for frame in itertools.islice(_at["frames"], count):
        wrong = is_torn(frame)
        time.sleep(draw.random() * _HELD)
        torn += wrong or is_torn(frame)
        if frame.number <= last:
            raise RuntimeError(f"frame {frame.number} came after frame {last}")
        last = frame.number
    return torn, last


def use_iceoryx(folder: str, title: str) -> None:
    """Publisher or subscriber of iceoryx2: have what it needs, until the process is killed."""
    owner = _at["iceoryx2"] = Iceoryx(folder)
    _at["port"] = owner.sender("left", 8) if title == "publisher" else owner.receiver("left")
