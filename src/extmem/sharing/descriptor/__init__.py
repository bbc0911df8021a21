"""The self-description that travels with a payload: a handle alone has neither size, type, device nor owner."""

from __future__ import annotations

from extmem.sharing.descriptor.contents import ArrayInfo, ImageInfo, PlaneInfo
from extmem.sharing.descriptor.descriptor import Descriptor

__all__ = ["ArrayInfo", "Descriptor", "ImageInfo", "PlaneInfo"]
