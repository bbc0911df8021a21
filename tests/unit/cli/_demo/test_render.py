"""The demo's animation and its picture."""

from __future__ import annotations

import io

import pytest

np = pytest.importorskip("numpy", reason="NumPy is not installed")

from PIL import Image  # noqa: E402  (after the check that NumPy is here)

from extmem.cli._demo import acts  # noqa: E402
from extmem.cli._demo.render import render  # noqa: E402


def test_a_frame_is_opaque_and_has_a_picture_in_it() -> None:
    frame = render(3, 64, 90, 160)
    assert frame.shape == (90, 160, 4) and frame.dtype == np.uint8
    assert (frame[..., 3] == 255).all()
    middle, corner = frame[20:70, 45:115, :3], frame[:8, :8, :3]
    assert middle.astype(int).max() - middle.astype(int).min() > 150
    assert corner.max() < 80


def test_the_same_index_gives_the_same_bytes_and_another_gives_others() -> None:
    assert (render(5, 16, 54, 96) == render(5, 16, 54, 96)).all()
    assert (render(5, 16, 54, 96) != render(6, 16, 54, 96)).any()


def test_the_animation_is_a_loop() -> None:
    assert (render(0, 16, 54, 96) == render(16, 16, 54, 96)).mean() > 0.99


@pytest.mark.parametrize(("height", "width"), [(1, 1), (7, 5), (13, 50)])
def test_sizes_that_tiles_do_not_divide(height: int, width: int) -> None:
    assert render(1, 4, height, width).shape == (height, width, 4)


def test_the_two_processes_play_their_parts_in_one(name: str) -> None:
    story = acts.publish(name, 3, 27, 48)
    facts = next(story)
    assert facts["kind"] == "host" and facts["size"] == 3 * 27 * 48 * 4
    acts._memory.insert(0, acts._memory.pop())
    digests = dict(story)
    published = acts._memory.pop()
    try:
        opened = acts.importer_open(name)
        assert opened == {"shape": [3, 27, 48, 4], "dtype": "uint8", "read_only": True, "host_visible": True}
        assert all(acts.check(index, digest) for index, digest in digests.items())
        assert not acts.check(0, digests[1])
        assert acts.draw_again(2)
        refusals = acts.try_to_write(name)
        assert [refusal["error"].partition(":")[0] for refusal in refusals] == [
            "ValueError",
            "AccessDeniedError",
            "AccessDeniedError",
        ]
        picture = Image.open(io.BytesIO(acts.sheet([0, 1, 2], 3, "three frames")))
        assert picture.format == "PNG" and picture.width > 3 * 320
    finally:
        acts.importer_close()
        acts._memory.append(published)
        acts.exporter_close()
