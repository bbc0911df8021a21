"""Operations of recorded commands, for `tests.operations`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from extmem import vk
from extmem.api import Buffer, Image
from extmem.api.commands import Commands

__all__ = ["CALLS"]

_COLOR = vk.ImageAspectFlagBits.COLOR
_TRANSFER = vk.PipelineStageFlagBits.TRANSFER
_Layout = vk.ImageLayout


def _target(scene: Any, at: int = 0) -> Buffer:
    return [thing for thing in scene.keep if isinstance(thing, Buffer)][at]


def _picture(scene: Any) -> Image:
    return next(thing for thing in scene.keep if isinstance(thing, Image))


CALLS: dict[tuple[type, str], Callable[[Any], Any]] = {
    (Commands, "fill_buffer"): lambda s: s.thing.fill_buffer(_target(s), s.tag * 0x0101_0101),
    (Commands, "copy_buffer"): lambda s: s.thing.copy_buffer(_target(s), _target(s, 1)),
    (Commands, "acquire"): lambda s: s.thing.acquire(_target(s)),
    # The buffer is one that no copy reads: a copy from a buffer that another thread has released is refused.
    (Commands, "release"): lambda s: s.thing.release(_target(s, 1)),
    (Commands, "change_layout"): lambda s: s.thing.change_layout(_picture(s), _Layout.UNDEFINED, _Layout.GENERAL),
    (Commands, "clear_color_image"): lambda s: s.thing.clear_color_image(_picture(s), (0.0, 0.0, 0.0, 0.0)),
    (Commands, "copy_buffer_to_image"): lambda s: s.thing.copy_buffer_to_image(_target(s), _picture(s)),
    (Commands, "copy_image_to_buffer"): lambda s: s.thing.copy_image_to_buffer(_picture(s), _target(s)),
    (Commands, "pipeline_barrier"): lambda s: s.thing.pipeline_barrier(_TRANSFER, _TRANSFER),
}
"""Each is called with a scene whose `keep` has two buffers and an image."""
