"""Tables of the documentation that come from the code's own tables. Each function returns Markdown, no heading."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import fields

from extmem import vk
from extmem.broker.rights import RIGHTS
from extmem.devices.backend import DESCRIPTOR_LIMIT
from extmem.devices.host import capabilities
from extmem.handles import Access
from extmem.objects import MEMORY, sddl
from extmem.objects.lifetimes import KEEPS, Holder
from extmem.objects.results import Limits
from extmem.objects.status import WINERROR, Status, error_for
from extmem.rules import ledger

__all__ = ["TABLES", "table"]

_HandleType = vk.ExternalMemoryHandleTypeFlagBits
_Feature = vk.ExternalMemoryFeatureFlagBits


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A Markdown table."""
    lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    lines += ["| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |" for row in rows]
    return "\n".join(lines)


def _lifetimes() -> str:
    def cell(value: int) -> str:
        return "yes" if value else "–"

    return table(
        ("holder", "payload", "shared object", "its name", "KMT number"),
        (
            (holder.value, *map(cell, (keeps.payload, keeps.object, keeps.name, keeps.kmt)))
            for holder, keeps in KEEPS.items()
        ),
    )


def _mask(mask: int) -> str:
    return MEMORY.describe(mask).rpartition(" (")[0].replace(" | ", ", ")


def _access() -> str:
    rows = []
    for member in Access.__members__.values():
        mapped = MEMORY.map_generic(int(member))
        told = "all that the object's security allows" if member is Access.MAXIMUM_ALLOWED else _mask(mapped)
        rows.append((f"`Access.{member.name}`", f"`0x{int(member):08X}`", f"`0x{mapped:X}`", told))
    return table(("name", "mask", "mapped", "what a handle then has"), rows)


def _rights() -> str:
    return table(
        ("letters", "mask", "means"),
        ((f"`{letters}`", f"`0x{mask:08X}`", _mask(mask)) for letters, mask in sddl.rights_of(MEMORY).items()),
    )


def _trustees() -> str:
    told = {"WD": "everyone", "OW": "the object's owner, in place of what owning alone gives"}
    rows = [(f"`{alias}` = `{sid}`", told[alias]) for alias, sid in sddl._ALIASES.items()]
    rows += [("`S-1-22-1-<uid>`", "one Unix user"), ("`S-1-22-2-<gid>`", "one Unix group")]
    return table(("trustee", "who"), rows)


def _ace_flags() -> str:
    told = {"IO": "the entry says nothing about the object itself"}
    return table(
        ("flag", "effect here"),
        ((f"`{word}`", told.get(word, "kept and shown, no effect")) for word in sddl._ACE_FLAGS),
    )


def _statuses() -> str:
    rows = []
    for status in Status:
        if status is not Status.SUCCESS:
            kind = type(error_for(status, "…")).__name__
            rows.append((f"`STATUS_{status.name}`", f"`0x{status:08X}`", str(WINERROR[status]), f"`{kind}`"))
    return table(("NTSTATUS", "value", "Win32 error", "class"), rows)


def _limits() -> str:
    limits = Limits()
    told = {
        "handles": "open NT handles",
        "references": "references to payloads (such as memory objects) that the object manager holds",
        "payload_handles": "handles (file descriptors) of one payload",
        "objects": "shared objects made",
        "tickets": "tickets in flight, of all processes of the user",
        "children": "inheriting children that have not shown up yet",
        "descriptor": "bytes of one descriptor",
    }
    return table(
        ("of one process", "at most"), ((told[f.name], f"{getattr(limits, f.name):,}") for f in fields(limits))
    )


def _senders() -> str:
    return table(
        ("message", "from", "when", "what the broker believes of it"),
        (
            (f"`{message.__name__}`", right.who.value, right.when.value, right.believed)
            for message, right in RIGHTS.items()
        ),
    )


def _ledger() -> str:
    counts = Counter[tuple[str, str]]((row.family, row.status) for row in ledger.rows())
    families = list(dict.fromkeys(row.family for row in ledger.rows()))
    statuses = ("checked", "on request", "by construction", "left to the driver", "left to the caller", "planned")
    rows = [
        (
            family,
            *(str(counts[family, status] or "–") for status in statuses),
            str(sum(counts[family, s] for s in statuses)),
        )
        for family in families
    ]
    total = (
        "**all**",
        *(str(sum(counts[family, status] for family in families)) for status in statuses),
        str(sum(counts.values())),
    )
    return table(("family", *statuses, "rules"), [*rows, total])


def _deciders() -> str:
    told = {
        "structs": "the structures of the call alone",
        "tracked state": "what extmem remembers of its own memory, buffers and images",
        "device query": "what the device answers when asked for its capabilities",
        "descriptor": "what the payload says of itself",
        "object manager": "what the object manager answers about a name, handle or number",
    }
    counts = Counter[str](row.checked_by for row in ledger.rows(status="checked"))
    return table(("decided by", "that is", "rules"), ((word, told[word], str(counts[word])) for word in told))


def _host_types() -> str:
    def names(mask: int) -> str:
        return (
            ", ".join(f"`{kind.name}`" for kind in _HandleType if kind in capabilities.SUPPORTED and mask & kind) or "–"
        )

    rows = []
    for kind in _HandleType:
        if kind not in capabilities.SUPPORTED:
            continue
        found = capabilities.buffer_properties(int(kind), 0)
        features = found.external_memory_features
        rows.append(
            (
                f"`{kind.name}`",
                "yes" if features & _Feature.EXPORTABLE else "–",
                "yes" if features & _Feature.IMPORTABLE else "–",
                names(int(found.compatible_handle_types)),
                names(int(found.export_from_imported_handle_types)),
            )
        )
    return table(
        ("handle type", "export", "import", "may be asked for together with", "exportable once imported"), rows
    )


def _descriptor() -> str:
    return f"The encoded descriptor has at most {DESCRIPTOR_LIMIT:,} bytes."


def _names() -> str:
    from extmem.objects.names import MAX_UNITS

    return f"A name has at most {MAX_UNITS} UTF-16 units, prefixes included."


def _holders() -> str:
    """Holders that keep nothing, in words."""
    return ", ".join(holder.value for holder in Holder if not any(KEEPS[holder]))


TABLES: dict[str, Callable[[], str]] = {
    "lifetimes": _lifetimes,
    "access": _access,
    "sddl rights": _rights,
    "sddl trustees": _trustees,
    "sddl flags": _ace_flags,
    "statuses": _statuses,
    "limits": _limits,
    "rights of messages": _senders,
    "ledger": _ledger,
    "deciders": _deciders,
    "host handle types": _host_types,
    "descriptor size": _descriptor,
    "name length": _names,
    "keeps nothing": _holders,
}
"""What may stand between `<!-- generated: NAME -->` and `<!-- end generated -->` in a document."""
