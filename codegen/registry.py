"""Reads the registry, and returns the part that is in scope as plain values for the writers.

How this works: `vulkan-object` parses the vk.xml that it contains. Everything else follows from the structs and
commands of `scope`: enums and flags that they use, and the StructureType of the structs in scope and of those that may
be chained to them. The kind of a field (see `fields`) determines its Python type and its conversion to C and back.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import importlib.resources
from dataclasses import dataclass
from typing import Any

from codegen import fields, formats, names, scope
from codegen.fields import Field
from codegen.formats import FormatModel

__all__ = ["CommandModel", "EnumModel", "Member", "Model", "ParamModel", "StructModel", "load"]


@dataclass(frozen=True)
class Member:
    """One member of an enum or flag type. `alias_of` is '' for a name that is not an alias."""

    name: str
    value: int
    c_name: str
    alias_of: str = ""


@dataclass(frozen=True)
class EnumModel:
    """An IntEnum, or with `is_flags` an IntFlag of 32 or 64 bits."""

    c_name: str
    is_flags: bool
    flags_c_name: str
    width: int
    aliases: tuple[str, ...]
    members: tuple[Member, ...]

    @property
    def name(self) -> str:
        """The Python name."""
        return names.py_type_name(self.c_name)


@dataclass(frozen=True)
class StructModel:
    """One struct; `fields` are all C members in C order, sType and pNext included."""

    c_name: str
    s_type: str
    aliases: tuple[str, ...]
    fields: tuple[Field, ...]
    extends: tuple[str, ...]
    extended_by: tuple[str, ...]
    returned_only: bool
    origin: str
    is_union: bool = False

    @property
    def name(self) -> str:
        """The Python name."""
        return names.py_type_name(self.c_name)

    @property
    def py_fields(self) -> tuple[Field, ...]:
        """The fields Python sees, in positional order."""
        return tuple(f for f in self.fields if f.kind not in ("s_type", "p_next", "count"))


@dataclass(frozen=True)
class ParamModel:
    """One parameter of a command."""

    name: str
    c_type: str
    optional: bool
    length: str


@dataclass(frozen=True)
class CommandModel:
    """One command."""

    c_name: str
    return_type: str
    params: tuple[ParamModel, ...]
    success: tuple[str, ...]
    error: tuple[str, ...]
    level: str
    origin: str
    aliases: tuple[str, ...]


@dataclass(frozen=True)
class Model:
    """Everything that is generated, and its source."""

    package_version: str
    registry_version: str
    input_hash: str
    enums: tuple[EnumModel, ...]
    structs: tuple[StructModel, ...]
    c_structs: tuple[StructModel, ...]
    """Structs and unions that are only used in C."""
    commands: tuple[CommandModel, ...]
    formats: tuple[FormatModel, ...]
    constants: tuple[tuple[str, int], ...]
    handles: tuple[tuple[str, bool], ...]
    """Handles: C name, and whether it is dispatchable."""
    totals: tuple[tuple[str, int, int], ...]
    """Rows of a table: what is counted, number in the registry, number in scope."""
    bitmask_of: dict[str, tuple[str, int]]
    """Flags type → (FlagBits type or '', width)."""
    vendors: tuple[str, ...]
    """Vendor suffixes, longer ones first."""

    def struct(self, c_name: str) -> StructModel:
        """Return the struct of that C name."""
        return next(s for s in self.structs if s.c_name == c_name)


def _origin(thing: Any) -> str:
    requirements = sorted(thing.definingRequirements)
    return ", ".join(requirements)


def _flat(groups: tuple[scope.Group, ...]) -> list[str]:
    flat = [name for group in groups for name in group.names]
    twice = {name for name in flat if flat.count(name) > 1}
    if twice:
        raise ValueError(f"in scope twice: {sorted(twice)}")
    return flat


def _members(c_name: str, items: list[Any], vendors: tuple[str, ...], keep: set[str] | None) -> tuple[Member, ...]:
    prefix = names.enum_prefix(c_name, vendors)
    items = [i for i in items if keep is None or i.name in keep]
    own: dict[str, Member] = {}
    short: list[tuple[str, str, int, str]] = []
    for item in items:
        name, bare = names.member_name(item.name, prefix, vendors)
        own[name] = Member(name, int(item.value), item.name)
        if bare:
            short.append((bare, name, int(item.value), item.name))
        for alias in item.aliases:
            # The registry keeps some misspelt old names without the prefix, which are not used any more.
            if alias.startswith(prefix):
                alias_name, alias_bare = names.member_name(alias, prefix, vendors)
                short.append((alias_name, name, int(item.value), alias))
                if alias_bare:
                    short.append((alias_bare, name, int(item.value), alias))
    claims: dict[str, set[int]] = {}
    for bare, _, value, _ in short:
        claims.setdefault(bare, set()).add(value)
    aliases: dict[str, Member] = {}
    for bare, target, value, c_member in short:
        if c_name == "VkStructureType" and bare in {names.member_name(i.name, prefix, vendors)[1] for i in items}:
            continue  # only a part of the type is in scope: a name without its suffix could be that of another struct
        # Two vendors may use one name for two values: then neither has an alias without its suffix.
        if bare not in own and bare not in aliases and len(claims[bare]) == 1:
            aliases[bare] = Member(bare, value, c_member, target)
    return tuple(sorted(own.values(), key=lambda m: (m.value, m.name))) + tuple(
        sorted(aliases.values(), key=lambda m: m.name)
    )


def _sort_by_containment(structs: list[StructModel]) -> tuple[StructModel, ...]:
    """Return the structs in the order of the scope table, but members of other structs before these."""
    done: dict[str, StructModel] = {}
    by_name = {s.c_name: s for s in structs}

    def visit(struct: StructModel) -> None:
        if struct.c_name in done:
            return
        for field in struct.fields:
            inner = by_name.get(field.c_type)
            if inner is not None:
                visit(inner)
        done[struct.c_name] = struct

    for struct in structs:
        visit(struct)
    return tuple(done.values())


def load() -> Model:
    """Return the part of the registry of the installed `vulkan-object` that is in scope."""
    # vulkan-object has no type information: everything from it is Any until it is in a class above.
    from vulkan_object import get_vulkan_object  # type: ignore[import-untyped]  # the package has no py.typed

    vk: Any = get_vulkan_object()
    digest = hashlib.sha256(importlib.resources.files("vulkan_object").joinpath("vk.xml").read_bytes()).hexdigest()
    vendors = tuple(sorted(vk.vendorTags, key=lambda tag: (-len(tag), tag)))
    bitmask_of: dict[str, tuple[str, int]] = {f.name: (f.bitmaskName or "", int(f.bitWidth)) for f in vk.flags.values()}
    kinds = fields.Kinds(
        enums=frozenset(vk.enums),
        bitmasks=frozenset(vk.bitmasks),
        flags=bitmask_of,
        handles={h.name: bool(h.dispatchable) for h in vk.handles.values()},
        structs=frozenset(_flat(scope.STRUCTS)),
        constants={c.name: c.value for c in vk.constants.values()},
    )

    structs: list[StructModel] = []
    for c_name in _flat(scope.STRUCTS):
        raw = vk.structs[c_name]
        structs.append(
            StructModel(
                c_name,
                raw.sType or "",
                tuple(sorted(raw.aliases)),
                fields.of_struct(raw, kinds),
                tuple(sorted(raw.extends)),
                tuple(sorted(raw.extendedBy)),
                bool(raw.returnedOnly),
                _origin(raw),
            )
        )
    c_structs: list[StructModel] = []
    for c_name in _flat(scope.C_STRUCTS):
        raw = vk.structs[c_name]
        c_structs.append(
            StructModel(c_name, raw.sType or "", (), fields.of_c_struct(raw), (), (), False, _origin(raw), raw.union)
        )
    commands: list[CommandModel] = []
    alias_of: dict[str, list[str]] = {}
    for raw in vk.commands.values():
        if raw.alias:
            alias_of.setdefault(raw.alias, []).append(raw.name)
    for c_name in _flat(scope.COMMANDS):
        raw = vk.commands[c_name]
        commands.append(
            CommandModel(
                c_name,
                raw.returnType,
                tuple(ParamModel(p.name, _param_type(p), bool(p.optional), p.length or "") for p in raw.params),
                tuple(raw.successCodes),
                tuple(raw.errorCodes),
                "instance" if raw.instance else "device",
                _origin(raw),
                tuple(sorted(alias_of.get(c_name, ()))),
            )
        )

    chained = {s.c_name for s in structs} | {name for s in structs for name in s.extended_by}
    s_types = {vk.structs[name].sType for name in chained if vk.structs[name].sType}
    s_types |= {s.s_type for s in c_structs if s.s_type}
    used = fields.types_used([*structs, *c_structs], commands)
    enums: list[EnumModel] = []
    for name in sorted(vk.enums):
        if name in used or name in ("VkResult", "VkStructureType"):
            raw = vk.enums[name]
            keep = s_types if name == "VkStructureType" else None
            members = _members(name, raw.fields, vendors, keep)
            enums.append(EnumModel(name, False, "", int(raw.bitWidth), tuple(sorted(raw.aliases)), members))
    for name in sorted(vk.bitmasks):
        raw = vk.bitmasks[name]
        if name in used or raw.flagName in used:
            members = _members(name, raw.flags, vendors, None)
            enums.append(EnumModel(name, True, raw.flagName, int(raw.bitWidth), tuple(sorted(raw.aliases)), members))
    constants = tuple((n, int(vk.constants[n].value)) for n in _flat(scope.CONSTANTS))
    handles = tuple(sorted((n, d) for n, d in kinds.handles.items() if n in used))
    totals = (
        ("structs", len(vk.structs), len(structs)),
        ("structs for C alone", len(vk.structs), len(c_structs)),
        ("commands", len(vk.commands), len(commands)),
        ("enums", len(vk.enums), sum(not e.is_flags for e in enums)),
        ("flag types", len(vk.bitmasks), sum(e.is_flags for e in enums)),
        ("structure types", len(vk.enums["VkStructureType"].fields), len(s_types)),
    )
    return Model(
        importlib.metadata.version("vulkan-object"),
        str(vk.headerVersionComplete),
        digest[:16],
        tuple(enums),
        _sort_by_containment(structs),
        _sort_by_containment(c_structs),
        tuple(commands),
        formats.read(vk),
        constants,
        handles,
        totals,
        bitmask_of,
        vendors,
    )


def _param_type(param: Any) -> str:
    return " ".join(str(param.fullType).split())
