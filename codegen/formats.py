"""The registry's table of formats, as plain values."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

__all__ = ["FormatModel", "read"]


@dataclass(frozen=True)
class FormatModel:
    """One format. Sizes in bytes; those of depth and stencil are for a copy to a buffer, 0 for none."""

    c_name: str
    value: int
    block_size: int
    block_extent: tuple[int, int, int]
    depth_size: int
    stencil_size: int
    planes: tuple[tuple[int, int, int], ...]
    """Compatible format, width divisor and height divisor of each plane; empty for formats in one plane."""
    compressed: bool
    chroma: bool
    """Whether sampling it needs a sampler Y'CbCr conversion."""


def read(vk: Any) -> tuple[FormatModel, ...]:
    """Return all formats, by their numbers."""
    values = {entry.name: int(entry.value) for entry in vk.enums["VkFormat"].fields}
    models = []
    for raw in vk.formats.values():
        bits = {part.type: part.bits for part in raw.components}
        # A copy packs depth to a power of two: 24 bits take four bytes.
        depth = 2 if bits.get("D") == "16" else 4 if "D" in bits else 0
        width, height, slices = (int(length) for length in raw.blockExtent or (1, 1, 1))
        models.append(
            FormatModel(
                raw.name,
                values[raw.name],
                int(raw.blockSize),
                (width, height, slices),
                depth,
                int(bits["S"]) // 8 if "S" in bits else 0,
                tuple((values[p.compatible], int(p.widthDivisor), int(p.heightDivisor)) for p in raw.planes),
                bool(raw.compressed),
                bool(raw.chroma),
            )
        )
    return tuple(sorted(models, key=lambda one: one.value))
