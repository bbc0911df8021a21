"""Conversion of the registry's names to Python names."""

from __future__ import annotations

import re

__all__ = ["enum_prefix", "member_name", "py_type_name", "snake", "strip_pointer"]


def py_type_name(c_name: str) -> str:
    """Return the Python name of a type: `VkMemoryAllocateInfo` → `MemoryAllocateInfo`."""
    return c_name.removeprefix("Vk")


def snake(name: str) -> str:
    """Return a name in snake case.

    `deviceLUIDValid` → `device_luid_valid`, `maxImageDimension2D` → `max_image_dimension_2d`.
    """
    name = re.sub(r"(\d)D(?=[A-Z]|$)", r"_\1d", name)
    name = re.sub(r"([A-Z]+)([A-Z][a-z])", r"\1_\2", name)
    return re.sub(r"([a-z0-9])([A-Z])", r"\1_\2", name).lower()


def strip_pointer(name: str) -> str:
    """Return a name without the prefix of pointers: `pHostPointer` → `HostPointer`; other names are not changed."""
    return name[1:] if re.match(r"p[A-Z]", name) else name


def _vendor(name: str, vendors: tuple[str, ...]) -> str:
    for vendor in vendors:
        if name.endswith(vendor):
            return vendor
    return ""


def enum_prefix(c_name: str, vendors: tuple[str, ...]) -> str:
    """Return the prefix of all members of an enum: `VkAccessFlagBits2` → `VK_ACCESS_2_`."""
    if c_name == "VkResult":
        return "VK_"
    vendor = _vendor(c_name, vendors)
    base = c_name.removesuffix(vendor) if vendor else c_name
    return re.sub(r"_FLAG_BITS", "", re.sub(r"(\d)", r"_\1", snake(base)).upper()) + "_"


def member_name(name: str, prefix: str, vendors: tuple[str, ...]) -> tuple[str, str]:
    """Return the Python name of an enum member and its alias without vendor ('' if there is no vendor suffix).

    `VK_EXTERNAL_MEMORY_HANDLE_TYPE_DMA_BUF_BIT_EXT` → `("DMA_BUF_EXT", "DMA_BUF")`. A name that would begin with a
    digit keeps the last word of the prefix: `VK_IMAGE_TYPE_2D` → `TYPE_2D`.
    """
    if not name.startswith(prefix):
        raise ValueError(f"enum member {name} does not begin with {prefix}")
    short = name.removeprefix(prefix)
    suffix = ""
    for vendor in vendors:
        if short.endswith("_" + vendor):
            suffix = "_" + vendor
            break
    base = short.removesuffix(suffix) if suffix else short
    base = base.removesuffix("_BIT")
    if base[:1].isdigit():
        word = next(w for w in reversed(prefix.rstrip("_").split("_")) if not w.isdigit())
        base = f"{word}_{base}"
    return base + suffix, base if suffix else ""
