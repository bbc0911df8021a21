"""The table of formats: sizes of texel blocks, aspects and planes."""

from __future__ import annotations

from codegen.formats import FormatModel
from codegen.registry import Model
from codegen.writers import header

__all__ = ["write_formats"]

_WORDS = """
FORMATS: dict[int, tuple[int, tuple[int, int, int], int, int, tuple[tuple[int, int, int], ...], bool, bool]] = {
    # VkFormat: bytes of a texel block; texels of a block in each axis; bytes of a depth and of a stencil texel in a
    # buffer; for each plane its compatible VkFormat, width divisor and height divisor; compressed; has chroma.
"""


def _row(entry: FormatModel) -> str:
    facts = f"{entry.block_size}, {entry.block_extent}, {entry.depth_size}, {entry.stencil_size}"
    return f"    {entry.value}: ({facts}, {entry.planes}, {entry.compressed}, {entry.chroma}),  # {entry.c_name}\n"


def write_formats(model: Model) -> str:
    """`formats.py`."""
    subject = "Formats of the Vulkan registry. Use `extmem.vk.formats`, which has named fields."
    rows = "".join(_row(entry) for entry in model.formats)
    return header(model, subject) + '\n__all__ = ["FORMATS"]\n' + _WORDS + rows + "}\n"
