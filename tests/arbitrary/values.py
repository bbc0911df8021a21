"""Arbitrary values of the fields of structs, by the fields' types, and the values that a valid call has there.

How this works. A struct is written as a dict: its class under `CLASS`, with its fields. `struct` begins with the fields
of a valid one and puts arbitrary values into some of them, in range and out of range. What refers to an object (a
buffer, the size that an image requires) is written as a dict too; `running.py` looks it up.

Two things are never drawn. A *number* in a field that has an object or an address: such a number is the caller's
responsibility, and a wrong one is a wrong address. And a size between 64 MiB and 1 TiB: the tests are not about
shortage of memory.
"""

from __future__ import annotations

import ast
import dataclasses
import enum
import functools
import random
import typing
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypeAlias

from extmem import vk
from extmem.vk._generated import structs

__all__ = ["CLASS", "Draw", "Value", "flags", "hints", "structs_of_chain"]

Value: TypeAlias = Any
"""What JSON has: numbers, text, lists, dicts, null."""
CLASS = "class"
_COUNTS = (0, 1, 2, 3, 4, 5, 7, 8, 16, 30, 31, 32, 63, 64, 65, 255, 256, 4096, 1 << 16)
_ODD = (-1, (1 << 31) - 1, 1 << 31, (1 << 32) - 2, (1 << 32) - 1, 1 << 32, 1 << 40, 1 << 63, (1 << 64) - 1, 1 << 64)
_WRONG = (1.5, -0.5, 1e300, "x", "", [1], [[]], None, {"odd": "object"}, {"odd": "struct"}, {"odd": "index"})
"""Values that are not numbers. JSON has no objects: `running.py` makes what `odd` names."""
_FORMATS = (
    vk.Format.R8_UNORM,
    vk.Format.R16G16_SFLOAT,
    vk.Format.R32G32B32A32_SFLOAT,
    vk.Format.R8G8B8A8_UINT,
    vk.Format.D16_UNORM,
    vk.Format.D32_SFLOAT,
    vk.Format.D32_SFLOAT_S8_UINT,
    vk.Format.D24_UNORM_S8_UINT,
    vk.Format.S8_UINT,
    vk.Format.BC1_RGB_UNORM_BLOCK,
    vk.Format.G8_B8R8_2PLANE_420_UNORM,
    vk.Format.G10X6_B10X6R10X6_2PLANE_420_UNORM_3PACK16,
    vk.Format.G8B8G8R8_422_UNORM,
)


class _Names(dict[str, Any]):
    """What names in annotations mean."""

    def __missing__(self, name: str) -> Any:
        if name not in vk.__all__:
            raise KeyError(name)  # Python's own, as `int`
        return getattr(vk, name)


@functools.cache
def _annotations() -> dict[str, dict[str, str]]:
    """Return the annotations of the fields of generated structs. Only their stub file has them."""
    stub = Path(structs.__file__).with_suffix(".pyi").read_text(encoding="utf-8")
    return {
        kind.name: {
            field.target.id: ast.unparse(field.annotation)
            for field in kind.body
            if isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name)
        }
        for kind in ast.parse(stub).body
        if isinstance(kind, ast.ClassDef)
    }


@functools.cache
def hints(struct: type[vk.Struct]) -> dict[str, Any]:
    """Return the types of a struct's fields."""
    known = _annotations().get(struct.__name__)
    if known is None:
        found = typing.get_type_hints(struct.__init__)
    else:
        names = _Names(Sequence=Sequence, ClassVar=typing.ClassVar, SupportsInt=typing.SupportsInt)
        found = {name: eval(text, {}, names) for name, text in known.items()}
    return {field.name: found[field.name] for field in dataclasses.fields(struct) if not field.name.isupper()}


@functools.cache
def structs_of_chain(struct: type[vk.ChainStruct]) -> tuple[type[vk.ChainStruct], ...]:
    """Return the structs of `extmem.vk` that may follow this one in a pNext chain."""
    allowed = vk.CHAIN_ALLOWED.get(struct.C_NAME, frozenset())
    found = {
        value.C_NAME: value
        for value in (getattr(vk, name) for name in vk.__all__)
        if isinstance(value, type) and issubclass(value, vk.ChainStruct) and value is not vk.ChainStruct
    }
    return tuple(found[name] for name in sorted(allowed) if name in found)


def flags(*bits: int) -> int:
    """Return all of these together."""
    whole = 0
    for bit in bits:
        whole |= int(bit)
    return whole


class Draw(random.Random):
    """Draws values. The seed determines everything."""

    def chance(self, share: float) -> bool:
        """Return True in this share of the calls."""
        return self.random() < share

    def count(self) -> int:
        """Return a number that may be a size, an index or a count, or out of every range."""
        return self.choice(_COUNTS if self.chance(0.6) else _ODD)

    def wrong(self) -> Value:
        """Return a value that is not a number."""
        return self.choice(_WRONG)

    def of_type(self, hint: Any, name: str = "") -> Value:
        """Return an arbitrary value for a field of this type. hint: as in `hints`."""
        kinds = typing.get_args(hint) if typing.get_origin(hint) is not Sequence else (hint,)
        kinds = kinds or (hint,)
        first = kinds[0]
        if name == "format" and self.chance(0.7):
            return int(self.choice(_FORMATS))
        if isinstance(first, type) and issubclass(first, enum.Flag):
            return self.flags_of(first)
        if isinstance(first, type) and issubclass(first, enum.Enum):
            return int(self.choice(list(first)).value) if self.chance(0.8) else self.choice((999, 0x7FFF_FFFF, -1))
        if first is int:
            return self.count()
        if typing.get_origin(first) is not None:  # Sequence[int], of queue families
            return self.choice(([], [0], [0, 0], [0, 1], [7, 9], [0, 0xFFFF_FFFF], [0] * 9))
        if isinstance(first, type) and issubclass(first, vk.ChainStruct):
            return None
        if isinstance(first, type) and issubclass(first, vk.Struct):
            return self.struct(first, {})
        if first is str:
            return self.choice((None, "arbitrary", ""))
        return None  # an object, an address or a chain: the callers' part

    def flags_of(self, kind: type[enum.Flag]) -> int:
        """Return some of its bits, none, or one that it does not have."""
        bits = [int(bit.value) for bit in kind]
        if not bits or self.chance(0.1):
            return self.choice((0, 1 << 30, 0x7FFF_FFFF))
        return flags(*self.sample(bits, min(len(bits), self.choice((0, 1, 1, 2, 3)))))

    def struct(self, kind: type[vk.Struct], valid: dict[str, Value], wild: float = 0.0) -> dict[str, Value]:
        """Return a struct with these fields; each other field is arbitrary. wild: the share of arbitrary ones among
        `valid`.

        `p_next` is not drawn; see `chain`.
        """
        made: dict[str, Value] = {CLASS: kind.__name__}
        for name, hint in hints(kind).items():
            drawn = name not in valid or (self.chance(wild) and not isinstance(valid[name], dict | type(None)))
            if name != "p_next" and drawn and name in valid and self.chance(0.15):
                made[name] = self.wrong()
            elif name != "p_next":
                made[name] = self.of_type(hint, name) if drawn else valid[name]
            elif valid.get(name) is not None:
                made[name] = valid[name]
        return made

    def chain(self, struct: dict[str, Value], valid: dict[str, dict[str, Value]], share: float) -> dict[str, Value]:
        """Return the struct with other structs in its chain, in this share of the calls. valid: fields by class."""
        allowed = structs_of_chain(getattr(vk, struct[CLASS]))
        if allowed and self.chance(share):
            kind = self.choice(allowed)
            link = self.struct(kind, valid.get(kind.__name__, {}), 0.1)
            link["p_next"] = struct.get("p_next")
            return {**struct, "p_next": link}
        return struct
