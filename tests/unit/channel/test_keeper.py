"""`FrameKeeper`: what arrays that outlive their frames mean for others, and what is left of a reader that is closed."""

from __future__ import annotations

import threading
from typing import Any

import pytest

import extmem
from extmem.channel import reclaiming
from extmem.testing.leaks import descriptors


@pytest.mark.parametrize("arrays", [1, 2])
def test_the_end_of_the_last_array_of_a_released_frame_wakes_a_writer_that_waits(
    name: str, arrays: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    looked, sleep = threading.Event(), reclaiming.sleep_on_pages

    def noted(pages: Any, deadline: int | None) -> bool:
        looked.set()  # after the look for a free slot
        return sleep(pages, deadline)

    monkeypatch.setattr(reclaiming, "sleep_on_pages", noted)
    with extmem.create_channel(name, 8, slots=2, when_full="wait", timeout=40) as writer:
        with extmem.open_channel(name, max_held=2) as reader:
            writer.write().publish()
            kept = [reader.read(timeout=5).numpy()]
            kept += [kept[0][:4]] * (arrays - 1)
            assert reader.poll() is None
            writer.write().publish()
            numbers: list[int] = []
            thread = threading.Thread(target=lambda: numbers.append(writer.write().publish()))
            thread.start()
            assert looked.wait(20)
            signaled = reader._own_page.value
            kept.clear()
            assert reader._own_page.value == signaled + 1  # on which the writer sleeps
            thread.join(20)
            assert numbers == [3]


@pytest.mark.linux_only("Windows has no file descriptors of this process to count")
def test_a_channel_that_is_closed_keeps_no_descriptor(name: str) -> None:
    with extmem.create_channel(name, 8):
        closed = [extmem.open_channel(name) for _ in range(2)]
        for reader in closed:
            reader.close()
        before = len(descriptors())
        more = [extmem.open_channel(name) for _ in range(3)]
        assert len(descriptors()) > before
        for reader in more:
            reader.close()
        assert len(descriptors()) <= before
    for index in range(2):
        with extmem.create_channel(f"{name}.{index}", 8) as other:
            pass
        assert other.closed and len(descriptors()) <= before
