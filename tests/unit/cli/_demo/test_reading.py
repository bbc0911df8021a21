"""The tasks of the demo's processes, played in this one."""

from __future__ import annotations

import pytest

np = pytest.importorskip("numpy", reason="NumPy is not installed")

import extmem  # noqa: E402  (after the check that NumPy is here)
from extmem.cli._demo import reading, writing  # noqa: E402
from extmem.cli._demo.events import HALF, digest_of, pack, unpack  # noqa: E402

FRAMES = 3
"""Fewer than the channel has slots: the writer need not wait for the reader, which is in the same process."""


def test_metadata_survive_the_way() -> None:
    digest = digest_of(np.arange(8, dtype="uint8"))
    assert unpack(pack(7, 4711, digest)) == (7, 4711, digest)
    assert digest != digest_of(np.arange(1, 9, dtype="uint8"))


def test_writer_and_reader_play_their_parts_in_one_process(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    facts = writing.begin(name, 27, 48)
    assert facts["kind"] == "host" and facts["slot"] == 27 * 48 * 4 and facts["count"] == 0
    reading.open_channel(name, True)
    try:
        monkeypatch.setattr(writing, "_KILLED_WITHIN", 0)
        story = writing.write(FRAMES, 2)
        first, half = next(story), next(story)
        assert first.number == 1 and half[0] == HALF and half[1].number == 2
        with pytest.raises(RuntimeError, match="was to be killed"):
            next(story)
        assert [one.number for one in writing.write(FRAMES, None)] == [2, 3], "it goes on where it was"
        result = reading.read(FRAMES, 0, [1, 3])
        assert [one.number for one in result["seen"]] == [1, 2, 3]
        assert all(one.whole for one in result["seen"]) and result["lost"] == 0
        assert [number for number, _ in result["pictures"]] == [1, 3]
        assert result["redrawn"] == [1, 2, 3] and result["different"] == []
        refusals = reading.try_to_write(name)
        assert [refusal["error"].partition(":")[0] for refusal in refusals] == [
            "ValueError",
            "AccessDeniedError",
            "ChannelTakenError",
        ]
    finally:
        reading.end()
        writing.end()


def test_a_frame_that_is_not_as_it_was_drawn_is_found(name: str) -> None:
    """Both checks: the checksum that travels with the frame, and the frame that the reader draws itself."""
    with extmem.create_channel(name, (27, 48, 4), "uint8") as channel:
        reading.open_channel(name, True)
        try:
            for number in (1, 2):
                with channel.write() as frame:
                    frame.numpy()[:] = number
                    frame.meta = pack(number - 1, 1, digest_of(frame.numpy()) if number == 2 else bytes(16))
            result = reading.read(2, 0, [])
        finally:
            reading.end()
    assert [one.whole for one in result["seen"]] == [False, True]
    assert result["different"] == [1, 2] and len(result["pictures"]) == 2
