"""One vkCreateBuffer or vkCreateImage with its facts, and the suites in which the checks of both are registered."""

from __future__ import annotations

from collections.abc import Mapping
from enum import IntFlag
from typing import Any

import msgspec

from extmem import vk
from extmem.rules._conditions import all_of, has_bits, lacks_feature, not_one_of
from extmem.rules._enabled import CHAINED, Needs, lacking_bits, lacks
from extmem.rules._engine import Condition, Demand, Suite
from extmem.rules._text import enum_text
from extmem.rules.facts import DeviceFacts, ExternalMemoryFacts, ImageFormatFacts
from extmem.vk._generated.chains import CHAIN_ALLOWED
from extmem.vk.formats import format_name
from extmem.vk.handle_types import MemoryHandleType

__all__ = [
    "BOTH",
    "BUFFER_QUERY",
    "CREATE_BUFFER",
    "CREATE_IMAGE",
    "FORMAT_QUERY",
    "Answers",
    "Create",
    "Traits",
    "chain_demands",
    "chain_of",
    "enabled_bits",
    "flag_needs_feature",
    "sharing_mode",
]

Answers = Mapping[MemoryHandleType, ExternalMemoryFacts]
_LONGEST_CHAIN = 64


def chain_of(info: Any) -> list[Any]:
    """Return the structs chained to this one. If the chain leads back into itself, the list repeats some of them."""
    structs: list[Any] = []
    node = info.p_next
    while node is not None and len(structs) < _LONGEST_CHAIN:
        structs.append(node)
        node = node.p_next if isinstance(node, vk.ChainStruct) else None
    return structs


class Traits:
    """Properties of a call that checks depend on, as single bits."""

    TYPE_1D = 1 << 0
    """The image type is 1D."""
    TYPE_2D = 1 << 1
    TYPE_3D = 1 << 2
    CONCURRENT = 1 << 3
    """The resource is shared by queue families."""
    LIMITS = 1 << 4
    """The device's limits for such images are known, and it supports them."""
    MODIFIER = 1 << 5
    """The tiling is DRM_FORMAT_MODIFIER."""
    EXPLICIT = 1 << 6
    """The chain has VkImageDrmFormatModifierExplicitCreateInfoEXT."""
    QUERY_MODIFIER = 1 << 7
    """The chain of the query has VkPhysicalDeviceImageDrmFormatModifierInfoEXT."""
    QUERY_CONCURRENT = 1 << 8
    """That struct is about images that are shared by queue families."""
    FLAGS = 1 << 9
    """The create flags are not 0."""


_STRUCTS: dict[type, int] = {
    vk.ImageDrmFormatModifierExplicitCreateInfoEXT: Traits.EXPLICIT,
    vk.PhysicalDeviceImageDrmFormatModifierInfoEXT: Traits.QUERY_MODIFIER,
}
_CONCURRENT, _DRM = int(vk.SharingMode.CONCURRENT), int(vk.ImageTiling.DRM_FORMAT_MODIFIER_EXT)
_IMAGE_TYPES = {0: Traits.TYPE_1D, 1: Traits.TYPE_2D, 2: Traits.TYPE_3D}


class Create(msgspec.Struct):
    """One vkCreateBuffer or vkCreateImage, or a query about such buffers or images."""

    info: Any
    external: Any
    handle_types: MemoryHandleType
    where: str
    """Path of the struct about external memory."""
    answers: Answers
    device: DeviceFacts | None = None
    nv: Any = None
    chain: list[Any] = msgspec.field(default_factory=list)
    format: ImageFormatFacts | None = None
    """What the device reported for exactly this image; None if it was not queried."""

    @property
    def struct(self) -> str:
        """Name of the create info's, or query's, struct."""
        return type(self.info).__name__

    @property
    def usage_is_chained(self) -> bool:
        """Whether the chain has the usage of the buffer."""
        return any(isinstance(node, vk.BufferUsageFlags2CreateInfo) for node in self.chain)

    @property
    def image_type(self) -> int:
        """Type of the image."""
        return int(self.info.type if isinstance(self.info, _QUERY) else self.info.image_type)

    @property
    def image_type_text(self) -> str:
        """Type of the image, as text."""
        return enum_text(self.image_type, vk.ImageType)

    @property
    def format_name(self) -> str:
        """Name of the image's format."""
        return format_name(int(self.info.format))

    def chained(self, struct: type) -> Any:
        """Return the first struct of this type in the chain; None if there is none."""
        return next((node for node in self.chain if type(node) is struct), None)

    @property
    def explicit(self) -> Any:
        """The struct with one modifier and the layouts of its planes; None if the chain lacks it."""
        return self.chained(vk.ImageDrmFormatModifierExplicitCreateInfoEXT)

    @property
    def queried(self) -> Any:
        """The struct with the modifier that a query is about; None if the chain lacks it."""
        return self.chained(vk.PhysicalDeviceImageDrmFormatModifierInfoEXT)

    @property
    def traits(self) -> int:
        """Bits of `Traits`."""
        info = self.info
        traits = Traits.FLAGS if info.flags else 0
        for node in self.chain:
            traits |= _STRUCTS.get(type(node), 0)
        if traits & Traits.QUERY_MODIFIER and self.queried.sharing_mode == _CONCURRENT:
            traits |= Traits.QUERY_CONCURRENT
        if not isinstance(info, _QUERY) and info.sharing_mode == _CONCURRENT:
            traits |= Traits.CONCURRENT
        if isinstance(info, vk.BufferCreateInfo):
            return traits
        if info.tiling == _DRM:
            traits |= Traits.MODIFIER
        if self.format is not None and not self.format.unsupported:
            traits |= Traits.LIMITS
        return traits | _IMAGE_TYPES.get(self.image_type, 0)


_QUERY = vk.PhysicalDeviceImageFormatInfo2

CREATE_BUFFER: Suite[Create] = Suite("vkCreateBuffer")
CREATE_IMAGE: Suite[Create] = Suite("vkCreateImage")
BOTH = (CREATE_BUFFER, CREATE_IMAGE)
BUFFER_QUERY: Suite[Create] = Suite("vkGetPhysicalDeviceExternalBufferProperties")
FORMAT_QUERY: Suite[Create] = Suite("vkGetPhysicalDeviceImageFormatProperties2")
"""vkGetPhysicalDeviceImageFormatProperties2. Checks on the struct about external memory are in `create_and_query`."""


def chain_demands(struct: str) -> tuple[Demand, Demand]:
    """Return the rows on the chain of this struct (its C name).

    The chain has only structs that extend it, and whose extensions are enabled, and each of them once. A chain that
    leads back into itself repeats its structs.
    """
    allowed, where = CHAIN_ALLOWED[struct], f"{struct.removeprefix('Vk')}.pNext"

    def foreign(call: Create) -> str:
        problems = []
        for node in dict.fromkeys(type(n) for n in call.chain):
            needs = CHAINED.get(node)
            if getattr(node, "C_NAME", "") not in allowed:
                problems.append(f"{node.__name__} does not extend {struct.removeprefix('Vk')}")
            elif needs is not None and lacks(needs, call.device):
                problems.append(f"{node.__name__} needs {needs.text}, which is not enabled")
        return "; ".join(problems)

    return (
        Demand(f"{struct}-pNext-pNext", foreign, where, "{found}", "Take it out of the chain."),
        Demand(
            f"{struct}-sType-unique",
            _repeated,
            where,
            "{found} is in the chain more than once",
            "Keep one struct of each type.",
        ),
    )


def _repeated(call: Create) -> str:
    if len(call.chain) < 2:
        return ""
    types = [type(node) for node in call.chain]
    return ", ".join(struct.__name__ for struct in dict.fromkeys(types) if types.count(struct) > 1)


def enabled_bits(
    vuids: str | tuple[str, ...], field: str, enum: type[IntFlag], table: Mapping[int, Needs], *only: Condition
) -> Demand:
    """Return the row that the field has defined and enabled bits only; for calls with `only`, if given."""

    def broken(call: Create) -> str:
        return lacking_bits(int(getattr(call.info, field)), enum, table, call.device)

    remedy = f"Give bits of {enum.__name__} that the device has."
    return Demand(vuids, all_of(*only, broken) if only else broken, f"{{call.struct}}.{field}", "{found}", remedy)


def flag_needs_feature(
    vuids: str | tuple[str, ...], flag: IntFlag, feature: str, *also: Condition, needs: int = 0
) -> Demand:
    """Return the row that the create flag is given only if the feature is enabled; for calls with `also`, if given."""
    return Demand(
        vuids,
        all_of(has_bits("info.flags", flag), *also, lacks_feature(feature)),
        "{call.struct}.flags",
        f"{flag.name} needs the feature {feature}, which is not enabled",
        f"Omit {flag.name}.",
        needs | Traits.FLAGS,
    )


def sharing_mode(vuid: str) -> Demand:
    """Return the row that the sharing mode is one of the two."""
    return Demand(
        vuid,
        not_one_of("info.sharing_mode", frozenset(vk.SharingMode)),
        "{call.struct}.sharing_mode",
        "{call.info.sharing_mode:d} is not a sharing mode",
        "Give SharingMode.EXCLUSIVE or CONCURRENT.",
    )
