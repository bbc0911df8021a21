"""`REPORT.md`: what the last run included and omitted. It is committed, so that a registry update shows in the diff."""

from __future__ import annotations

from codegen import scope
from codegen.names import enum_prefix, member_name
from codegen.registry import Model
from scripts.wrap import rewrapped

__all__ = ["write_report"]


def _collisions(model: Model) -> list[str]:
    rows = []
    for e in model.enums:
        if e.c_name == "VkStructureType":
            continue
        have = {m.name: m.value for m in e.members}
        for m in e.members:
            if m.alias_of:
                continue
            name, bare = member_name(m.c_name, enum_prefix(e.c_name, model.vendors), model.vendors)
            if bare and have.get(bare) != m.value:
                rows.append(
                    f"- `{e.name}.{name}`: `{bare}` " + ("is another value" if bare in have else "is claimed twice")
                )
    return rows


def write_report(model: Model) -> str:
    """Return the text of the report."""
    out = [
        "# What the generator includes from the registry",
        "",
        "Written by `python -m codegen`; do not edit.",
        "",
        f"vulkan-object {model.package_version}, registry {model.registry_version}, input sha256 {model.input_hash}.",
        "",
        "| | in the registry | in scope |",
        "|---|---|---|",
    ]
    out += [f"| {what} | {total} | {ours} |" for what, total, ours in model.totals]
    out += ["", "## In scope", ""]
    for title, groups in (
        ("Structs", scope.STRUCTS),
        ("Structs for C only", scope.C_STRUCTS),
        ("Commands", scope.COMMANDS),
        ("Constants", scope.CONSTANTS),
    ):
        out += [f"### {title}", ""]
        out += [f"- {g.reason} {', '.join(f'`{n}`' for n in g.names)}" for g in groups]
        out.append("")
    out += ["### Enums and flags, by use", ""]
    for e in model.enums:
        own = sum(not m.alias_of for m in e.members)
        out.append(f"- `{e.name}`: {own} values, {len(e.members) - own} aliases")
    out += ["", "## Fields whose Python form differs from that of their C type", ""]
    for (struct, member), rule in scope.FIELD_RULES.items():
        out.append(f"- `{struct}::{member}` → `{rule.py_name}: {rule.py_type} = {rule.default}`: {rule.reason}")
    out += ["", "Counts that follow from a sequence, and so are not fields:", ""]
    for s in model.structs:
        counts = [f"`{f.c_name}`" for f in s.fields if f.kind == "count"]
        if counts:
            out.append(f"- `{s.c_name}`: {', '.join(counts)}")
    out += ["", "Values that have no alias without the vendor suffix:", ""]
    out += _collisions(model) or ["- none"]
    out += ["", "## Out of scope, although it may be chained to a struct in scope", ""]
    ours_names = {s.c_name for s in model.structs}
    for s in sorted(model.structs, key=lambda x: x.c_name):
        absent = [f"`{n}`" for n in s.extended_by if n not in ours_names]
        if len(absent) > 40:
            out.append(f"- `{s.c_name}`: {len(absent)} structs, see `CHAIN_ALLOWED`")
        elif absent:
            out.append(f"- `{s.c_name}`: {', '.join(absent)}")
    return rewrapped("\n".join(out) + "\n")
