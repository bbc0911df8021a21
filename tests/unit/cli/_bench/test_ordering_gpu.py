"""The tasks of the benchmark of a GPU's timelines, on scripted drivers: they run, and end what they start."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from extmem.cli._bench import ordering_gpu
from extmem.testing import fake_cuda, leaks
from tests import cuda_bed

ROUNDS = 2


@pytest.fixture
def uuid(monkeypatch: pytest.MonkeyPatch) -> Iterator[bytes]:
    """A GPU that both scripted drivers have."""
    monkeypatch.setattr(ordering_gpu, "_ROUNDS", ROUNDS)
    with leaks.no_leaks(), cuda_bed.both():
        found = ordering_gpu.gpu_of_both()
        assert found is not None
        yield found


class NoFloor:
    """Stands for the C code, whose drivers are real ones."""

    def on_stream(self, rounds: int) -> int:
        return rounds

    chained = heard = paced = on_stream


def test_the_steps_take_turns(uuid: bytes) -> None:
    floor: Any = NoFloor()
    paced, paced_c, stream, stream_c, heard_c, chain, chain_c = ordering_gpu.order_in_turns(floor, uuid, 2)
    assert paced_c == stream_c == heard_c == chain_c == [ROUNDS, ROUNDS]
    assert len(paced) == len(stream) == len(chain) == 2 and min(*paced, *stream, *chain) > 0


def test_signals_are_waited_for_in_both_ways(uuid: bytes, name: str) -> None:
    ordering_gpu.make_timeline(uuid, name)
    for value, naive in ((1, False), (2, True)):
        waiting = ordering_gpu.wait_for_value(uuid, name, value, naive)
        next(waiting)
        begin = ordering_gpu.signal_value(value)
        assert begin <= next(waiting)
        assert next(waiting, None) is None
    assert not any(ordering_gpu.import_often(uuid, name, 4).values())
    ordering_gpu.close_all()


def test_a_gpu_of_one_api_is_not_measured() -> None:
    fake = fake_cuda.FakeCuda()
    with fake_cuda.installed(fake):
        assert ordering_gpu.gpu_of_both() is None
