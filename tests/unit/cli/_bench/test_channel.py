"""The parts of the benchmark of channels: they run, measure what they say, and see what is wrong."""

from __future__ import annotations

import os
import re
import tempfile
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from extmem.cli._bench import (
    channel,
    channel_bounds,
    channel_calls,
    channel_ends,
    channel_fan,
    channel_gpu,
    channel_hops,
    channel_peers,
    channel_storm,
)
from extmem.cli._bench.channel_hops import Hop
from extmem.core import shared_devices
from tests import cuda_bed

SOURCES = Path(channel.__file__).parent
SIZE = 64


@pytest.fixture
def inherited() -> Iterator[channel_peers.Inherited]:
    made = channel_peers.Inherited(SIZE)
    yield made
    made.close()


@pytest.fixture
def folder() -> Iterator[Path]:
    """A folder with a short path, since sockets are put into it."""
    with tempfile.TemporaryDirectory(prefix="ends-") as made:
        yield Path(made)


def both_ends(way: str, label: str, folder: Path, inherited: channel_peers.Inherited) -> tuple[Any, Any]:
    """Return the ends of a way, both in this process."""
    if reason := channel_peers.lacking(way):
        pytest.skip(reason)
    first, second = (channel_peers.Place(str(folder), label, SIZE, place) for place in (True, False))
    return channel_peers.PEERS[way](first, inherited), channel_peers.PEERS[way](second, inherited)


@pytest.mark.parametrize("way", channel_peers.PEERS)
def test_a_number_goes_there_and_back(way: str, inherited: channel_peers.Inherited, folder: Path) -> None:
    mine, theirs = both_ends(way, "pair", folder, inherited)
    try:
        for number in (1, 2, 1 << 40):
            mine.send(number)
            assert theirs.receive() in (number, channel_peers.UNREAD)
            theirs.send(number + 1)
            assert mine.receive() == (channel_peers.UNREAD if way == channel_peers.ICEORYX else number + 1)
    finally:
        theirs.close()
        mine.close()
        channel_peers.remove_iceoryx(str(folder))
    assert not list(Path("/dev/shm").glob(f"*{channel_peers.iceoryx_prefix(str(folder))}*"))


def test_why_a_way_is_not_measured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert [channel_peers.lacking(way) for way in (channel_peers.PIPE, channel_ends.CHANNEL)] == ["", ""]
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr(channel_peers, "_MODULES", {"one": "no_such_library", "two": "broken_library", "three": "json"})
    (tmp_path / "broken_library.py").write_text("import no_such_part\n", encoding="utf-8")
    assert channel_peers.lacking("one") == "one is not installed"
    assert channel_peers.lacking("two") == "two cannot be imported: No module named 'no_such_part'"
    assert channel_peers.lacking("three") == ""


def test_every_bound_is_used_and_every_figure_with_a_bound_has_one() -> None:
    text = "".join(
        path.read_text(encoding="utf-8") for path in SOURCES.glob("channel*.py") if "bounds" not in path.name
    )
    for kind in channel_bounds.BOUNDS:
        start, _, end = kind.rpartition(", ")
        assert kind in text or kind.startswith(("one hop", "kill -9 of the writer")), (start, end)
    with pytest.raises(KeyError):
        channel_bounds.bounded("nothing", "nothing", 1)
    assert not re.search(r"\bat_(most|least)\(", text), "the bounds are in one table"


class _Here:
    """Workers in this process."""

    def worker(self, _: str) -> _Here:
        return self

    def dismiss(self, _: _Here) -> None: ...

    def name(self, label: str) -> str:
        return f"{label} of a test"

    def call(self, task: str, *arguments: Any, deadline: float = 0) -> Any:
        return getattr(channel_gpu, task.partition(":")[2])(*arguments)


def test_frames_of_a_gpu_are_measured_on_both_sides() -> None:
    here: Any = _Here()
    with cuda_bed.both(), shared_devices.fresh_devices():
        rows = list(channel_gpu.figures(here, 3, lambda _: None))
    bounds = {row.bound for row in rows[:4]}
    assert len(rows) == 6 and bounds == {20} and all(row.unit == "µs" for row in rows)


def test_without_a_gpu_its_frames_are_not_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(channel_gpu, "gpu_of_both", lambda: None)
    here: Any = _Here()
    rows = list(channel_gpu.figures(here, 3, lambda _: None))
    assert [(row.unit, row.bound) for row in rows] == [("not measured", None)] * 2


def hops(own: float, theirs: float, factor: float = 1.0) -> dict[tuple[str, str], Hop]:
    """Return hops in which a channel takes `own` and iceoryx2 `theirs`, and pyzmq and a pipe 1,000 times as long."""
    ways = (channel_ends.CHANNEL, channel_ends.CHANNEL_READ, channel_ends.AWAITED)
    times = {way: Hop(own, 2 * own) for way in ways} | {channel_peers.SEMAPHORE: Hop(1000.0, 1000.0)}
    times |= {way: Hop(theirs, 2 * theirs) for way in (channel_peers.ICEORYX, channel_peers.ICEORYX_READ)}
    times |= {way: Hop(own * 1e4 * factor, own * 1e4) for way in ("pyzmq", channel_peers.PIPE, channel_peers.QUEUE)}
    return {(way, size): hop for size in channel_hops.SIZES for way, hop in times.items()}


@pytest.mark.parametrize(("theirs", "missed"), [(10e3, []), (8e3, ["p50"]), (6e3, ["p50", "p90"])])
def test_a_hop_is_compared_with_iceoryx2(theirs: float, missed: list[str]) -> None:
    rows = list(channel_hops._compared(hops(10e3, theirs), "8 B", {}))
    assert [row.name.split(", ")[1] for row in rows if not row.ok] == 2 * missed
    assert len([row for row in rows if row.bound is not None]) == 5


def test_a_hop_of_8_mib_is_compared_with_copies() -> None:
    rows = {row.name: row for row in channel_hops._compared(hops(10e3, 10e3, 0.01), "8 MiB", {})}
    assert rows["one hop of 8 MiB, times as fast as pyzmq"].ok
    assert not rows["one hop of 8 MiB, times as fast as multiprocessing.Pipe"].ok
    assert rows["one hop of 8 MiB, times as fast as multiprocessing.Queue"].bound is None


def test_async_for_counts_twice_since_one_of_two_processes_awaits() -> None:
    given = hops(10e3, 10e3)
    given[channel_ends.AWAITED, "8 B"] = Hop(18e3, 18e3)
    (row,) = (row for row in channel_hops._compared(given, "8 B", {}) if "async" in row.name)
    assert (row.value, row.unit, row.ok) == (16, "µs", False)


def test_a_way_that_is_missing_has_no_ratio() -> None:
    missing = {channel_peers.PYZMQ: "no pyzmq"}
    missing |= dict.fromkeys((channel_peers.ICEORYX, channel_peers.ICEORYX_READ), "no iceoryx2")
    given = {key: hop for key, hop in hops(10e3, 10e3).items() if key[0] not in missing}
    rows = [row for row in channel_hops._compared(given, "8 MiB", missing) if row.unit == "not measured"]
    assert [row.name.rpartition(": ")[2] for row in rows] == ["no iceoryx2", "no iceoryx2", "no pyzmq"]
    assert all(row.bound is None for row in rows)


def test_another_payload_than_was_sent_is_an_error() -> None:
    end = SimpleNamespace(send=lambda number: None, receive=lambda: 7)
    with pytest.raises(RuntimeError, match="payload 0 was sent, and 7 came back"):
        channel_hops._blocked(end, 1)
    assert (
        len(channel_hops._blocked(SimpleNamespace(send=lambda number: None, receive=iter(range(3)).__next__), 3)) == 3
    )


def test_a_torn_frame_is_seen() -> None:
    whole = bytearray(channel_storm.filled(b"12345678"))
    assert not channel_storm.is_torn(SimpleNamespace(tobytes=lambda: bytes(whole), meta=b"12345678"))
    assert channel_storm.is_torn(SimpleNamespace(tobytes=lambda: bytes(whole), meta=b"12345679"))
    whole[len(whole) // 2] ^= 1
    assert channel_storm.is_torn(SimpleNamespace(tobytes=lambda: bytes(whole), meta=b"12345678"))


def test_what_stays_after_each_round_is_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(channel_calls, "wait_for", lambda condition, timeout: condition())
    kept: list[int] = []
    try:
        grown = channel_calls._grown(lambda number: kept.append(os.memfd_create("kept")), 3)
    finally:
        for fd in kept:
            os.close(fd)
    assert len(kept) == 3 + channel_calls._WARM_UP
    assert grown["fds"] == 3 and grown["payloads"] == 0
    assert channel_calls._grown(lambda number: None, 3)["fds"] == 0


def test_the_best_run_counts_for_each_figure() -> None:
    assert channel_hops.best([Hop(3, 9), Hop(2, 10)]) == Hop(2, 9)
    times = channel_fan.Times
    assert channel_fan.best([times(5, 9, 2), times(6, 7, 3), times(7, 8, 1)]) == times(5, 7, 1)
