"""What a payload may hold: an array or an image, and the checks that it lies inside the payload. Pure arithmetic."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal

import msgspec
from msgspec import Meta

from extmem import vk
from extmem.errors import DescriptorError
from extmem.owning import LateModule
from extmem.sharing.elements import NAMED_ELEMENTS, TEXT_LIMIT, ElementType, element_type, nbytes_of
from extmem.sharing.layout import reach_of
from extmem.sharing.limits import AXES_LIMIT

if TYPE_CHECKING:
    from extmem.vk import formats, modifiers
else:
    formats = LateModule(globals(), "extmem.vk.formats")
    modifiers = LateModule(globals(), "extmem.vk.modifiers")

__all__ = ["ArrayInfo", "ImageInfo", "PlaneInfo", "check_array", "check_image"]

_U32 = 0xFFFF_FFFF
_U64 = 0xFFFF_FFFF_FFFF_FFFF
_MAX = (1 << 63) - 1
_PLANES = 4
"""Memory planes of an image: VK_IMAGE_ASPECT_MEMORY_PLANE_0_BIT_EXT to 3."""
_Axes = Annotated[tuple[int, ...], Meta(max_length=AXES_LIMIT)]


class ArrayInfo(msgspec.Struct, array_like=True, frozen=True, forbid_unknown_fields=True):
    """The array that a payload holds from its first byte on.

    dtype is the canonical text of an element type (`sharing.elements`): "float32", ">int16", "datetime64[ns]". strides
    are bytes between neighbours, per axis; bits for packed element types, such as "int4_packed".
    """

    shape: _Axes
    dtype: Annotated[str, Meta(max_length=TEXT_LIMIT)]
    strides: _Axes

    @property
    def element(self) -> ElementType:
        """What the elements are. Errors: ValueError, if the descriptor was not checked."""
        return element_type(self.dtype)

    @property
    def order(self) -> Literal["C", "F", "strided"]:
        """How the elements follow each other: row-major, column-major or neither."""
        item = self.element.step
        if self._contiguous(range(len(self.shape) - 1, -1, -1), item):
            return "C"
        return "F" if self._contiguous(range(len(self.shape)), item) else "strided"

    def _contiguous(self, fastest_first: range, step: int) -> bool:
        for axis in fastest_first:
            if self.shape[axis] > 1 and self.strides[axis] != step:
                return False
            step *= max(1, self.shape[axis])
        return True


class PlaneInfo(msgspec.Struct, array_like=True, frozen=True, forbid_unknown_fields=True):
    """Where a memory plane of an image lies (VkSubresourceLayout). Bytes, from the image's first byte on."""

    offset: int
    size: int = 0
    """0 where nobody stated it."""
    row_pitch: int = 0
    array_pitch: int = 0
    depth_pitch: int = 0


class ImageInfo(msgspec.Struct, array_like=True, frozen=True, forbid_unknown_fields=True):
    """The image that a payload holds: VkFormat, texels per axis, VkImageTiling, DRM modifier, row pitch in bytes.

    modifier is None without one; row_pitch is 0 where the texels' places are the device's own business. planes: where
    the memory planes of an image with a modifier lie, one to four; empty for every other image.
    """

    format: int
    extent: tuple[int, int, int]
    tiling: int = 0
    modifier: int | None = None
    row_pitch: int = 0
    planes: Annotated[tuple[PlaneInfo, ...], Meta(max_length=_PLANES)] = ()


def check_array(array: ArrayInfo, payload_size: int) -> None:
    """The elements lie inside the payload, and there are no more of them than it has room for."""
    shape, strides = array.shape, array.strides
    try:
        element = NAMED_ELEMENTS.get(array.dtype) or element_type(array.dtype)
    except ValueError as error:
        raise DescriptorError(f"array dtype: {error}") from None
    if len(shape) > AXES_LIMIT or len(shape) != len(strides):
        raise DescriptorError(f"array has {len(shape)} axes and {len(strides)} strides; one each, at most {AXES_LIMIT}")
    count = 1
    for extent, stride in zip(shape, strides, strict=True):
        if not (0 <= extent <= _MAX and -_MAX <= stride <= _MAX):
            raise DescriptorError(f"array shape {shape} or strides {strides} are out of range, at most {_MAX}")
        # Empty axes count as one element: the others must make sense beside them, and no product may overflow.
        count *= extent or 1
    empty = 0 in shape
    nbytes = nbytes_of(element, (count,)) if element.itemsize is None else count * element.itemsize
    if nbytes > (_MAX if empty else payload_size):
        raise DescriptorError(
            f"array of shape {shape} and {array.dtype[:80]} takes {nbytes} bytes and the payload has {payload_size}"
        )
    first, last = reach_of(shape, strides, element)
    if first < 0 or last > payload_size:
        raise DescriptorError(
            f"array of shape {shape}, {array.dtype[:80]}, strides {strides} reaches from byte {first} to {last} "
            f"of a payload of {payload_size} bytes"
        )


def check_image(image: ImageInfo, payload_size: int) -> None:
    """The format and tiling are possible, and the payload has room for the texels where their size is known."""
    width, height, depth = image.extent
    if not all(1 <= axis <= _U32 for axis in image.extent):
        raise DescriptorError(f"image extent {image.extent} is out of range, 1 to {_U32} per axis")
    if not 0 <= image.format <= _U32 or not 0 <= image.row_pitch <= _MAX:
        raise DescriptorError(f"image format {image.format} or row pitch {image.row_pitch} is out of range")
    if image.tiling not in set(map(int, vk.ImageTiling)):
        raise DescriptorError(f"image tiling {image.tiling} is no VkImageTiling")
    modified = image.tiling == vk.ImageTiling.DRM_FORMAT_MODIFIER_EXT
    if modified != (image.modifier is not None) or not 0 <= (image.modifier or 0) <= _U64:
        raise DescriptorError(
            f"image tiling {image.tiling} with modifier {image.modifier}: DRM_FORMAT_MODIFIER tiling has one of 64 "
            "bits, and no other has any"
        )
    if len(image.planes) > (_PLANES if modified else 0):
        raise DescriptorError(
            f"image tiling {image.tiling} with {len(image.planes)} memory planes: DRM_FORMAT_MODIFIER tiling has up to "
            f"{_PLANES}, and no other has any"
        )
    for number, plane in enumerate(image.planes):
        if not all(0 <= n <= _MAX for n in msgspec.structs.astuple(plane)) or plane.offset + plane.size > payload_size:
            raise DescriptorError(
                f"memory plane {number} of the image is {plane}, out of range or beyond the payload of {payload_size} "
                "bytes"
            )
    if image.modifier not in (None, modifiers.LINEAR):
        return  # what the pitches mean, and how many bytes a texel takes, the modifier alone says
    texel = formats.texel_size(image.format)
    if texel is None:
        return
    row = width * texel
    if image.row_pitch and image.row_pitch < row:
        raise DescriptorError(f"image row pitch {image.row_pitch} is shorter than a row of {row} bytes")
    needed = (height * depth - 1) * max(row, image.row_pitch) + row
    if needed > payload_size:
        raise DescriptorError(
            f"image of {width} × {height} × {depth} texels of {texel} bytes takes {needed} bytes "
            f"and the payload has {payload_size}"
        )
