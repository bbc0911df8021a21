"""Streams of the frameworks as numbers, by the attribute that each framework has for that."""

from __future__ import annotations

import pytest

from extmem.interop.streams import stream_address


class Torch:
    cuda_stream = 5


class Cupy:
    ptr = 6


class Core:
    def __cuda_stream__(self) -> tuple[int, int]:
        return 0, 7


class JaxDevice:
    def get_stream_for_external_ready_event(self) -> int:
        return 8


class JaxArray:
    device = JaxDevice()


def test_streams_of_all_libraries_are_accepted() -> None:
    streams = (None, 4, Torch(), Cupy(), Core(), JaxDevice(), JaxArray())
    assert [stream_address(stream) for stream in streams] == [0, 4, 5, 6, 7, 8, 8]


@pytest.mark.parametrize("wrong", ["4", object(), 1.5])
def test_other_objects_are_refused(wrong: object) -> None:
    with pytest.raises(TypeError, match="is not a CUDA stream"):
        stream_address(wrong)
