"""The demo's animation."""

from __future__ import annotations

import pytest

np = pytest.importorskip("numpy", reason="NumPy is not installed")

from extmem.cli._demo.render import render  # noqa: E402  (after the check that NumPy is here)


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
