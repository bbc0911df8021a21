"""Tables of the documentation, written from tables of the code. Each function returns Markdown without a heading."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence

from msgspec.structs import fields

from extmem import vk
from extmem.broker.rights import RIGHTS
from extmem.devices.host import capabilities
from extmem.handles import Access
from extmem.objects import MEMORY, OBJECT_TYPES, ObjectKind, sddl
from extmem.objects.lifetimes import KEEPS, Holder
from extmem.objects.results import Limits
from extmem.objects.status import WINERROR, Status, error_for
from extmem.rules import ledger
from extmem.sharing.limits import DESCRIPTOR_LIMIT
from extmem.vk.handle_types import MemoryHandleType

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
        rights = "all rights that the security descriptor grants" if member is Access.MAXIMUM_ALLOWED else _mask(mapped)
        rows.append((f"`Access.{member.name}`", f"`0x{int(member):08X}`", f"`0x{mapped:X}`", rights))
    return table(("name", "mask", "mapped", "rights of the handle"), rows)


def _sync_access() -> str:
    kind = OBJECT_TYPES[ObjectKind.SEMAPHORE]
    generic = (
        ("GENERIC_READ", 0x8000_0000),
        ("GENERIC_WRITE", 0x4000_0000),
        ("GENERIC_EXECUTE", 0x2000_0000),
        ("GENERIC_ALL", 0x1000_0000),
        ("`Access.READ_WRITE`", 0x8000_0001),
    )
    rows = []
    for name, mask in generic:
        mapped = kind.map_generic(mask)
        words = kind.describe(mapped).rpartition(" (")[0].replace(" | ", ", ")
        rows.append((name, f"`0x{mask:08X}`", f"`0x{mapped:X}`", words))
    return table(("name", "mask", "mapped", "rights of the handle"), rows)


def _rights() -> str:
    return table(
        ("letters", "mask", "right"),
        ((f"`{letters}`", f"`0x{mask:08X}`", _mask(mask)) for letters, mask in sddl.rights_of(MEMORY).items()),
    )


def _trustees() -> str:
    meanings = {"WD": "everyone", "OW": "the object's owner, in place of the owner's default rights"}
    rows = [(f"`{alias}` = `{sid}`", meanings[alias]) for alias, sid in sddl._ALIASES.items()]
    rows += [("`S-1-22-1-<uid>`", "one Unix user"), ("`S-1-22-2-<gid>`", "one Unix group")]
    return table(("trustee", "meaning"), rows)


def _ace_flags() -> str:
    effects = {"IO": "the entry does not apply to the object itself"}
    return table(
        ("flag", "effect"),
        ((f"`{word}`", effects.get(word, "kept and shown, no effect")) for word in sddl._ACE_FLAGS),
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
    meanings = {
        "handles": "open NT handles",
        "references": "references to payloads (such as memory objects) that the object manager holds",
        "payload_handles": "handles (file descriptors) of one payload",
        "objects": "shared objects that the process made",
        "tickets": "tickets in flight, of all processes of the user",
        "children": "children that inherit handles and have not connected yet",
        "descriptor": "bytes of one descriptor",
        "kept": "objects that the object manager keeps for the user (`keep=`)",
        "waits": "waits for names",
        "user_waits": "waits for names, of all processes of the user",
    }
    rows = ((meanings[field.name], f"{getattr(limits, field.name):,}") for field in fields(limits))
    return table(("limit of one process", "at most"), rows)


def _senders() -> str:
    return table(
        ("message", "from", "when", "what the broker trusts in it"),
        (
            (f"`{message.__name__}`", right.who.value, right.when.value, right.believed)
            for message, right in RIGHTS.items()
        ),
    )


def _ledger() -> str:
    counts = Counter[tuple[str, str]]((row.family, row.status) for row in ledger.rows())
    families = list(dict.fromkeys(row.family for row in ledger.rows()))
    statuses = ("checked", "on request", "by construction", "left to the driver", "left to the caller")
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
    meanings = {
        "structs": "only the structures of the call",
        "tracked state": "the state of memory, buffers, images, semaphores and fences, which extmem records",
        "device query": "the device's answers to capability queries",
        "descriptor": "the descriptor of the payload",
        "object manager": "the object manager's answer about a name, handle or number",
    }
    counts = Counter[str](row.checked_by for row in ledger.rows(status="checked"))
    rows = ((word, meaning, str(counts[word])) for word, meaning in meanings.items())
    return table(("source", "values", "rules"), rows)


def _host_types() -> str:
    def names(mask: int) -> str:
        return ", ".join(f"`{kind.name}`" for kind in _HandleType if kind & capabilities.SUPPORTED & mask) or "–"

    rows = []
    for kind in _HandleType:
        if not kind & capabilities.SUPPORTED:
            continue
        found = capabilities.buffer_properties(MemoryHandleType(int(kind)), 0)
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
    return table(("handle type", "export", "import", "can be combined with", "an import can be exported as"), rows)


def _descriptor() -> str:
    return f"The encoded descriptor has at most {DESCRIPTOR_LIMIT:,} bytes."


def _names() -> str:
    from extmem.objects.names import MAX_UNITS

    return f"A name has at most {MAX_UNITS} UTF-16 units, prefixes included."


def _holders() -> str:
    """A list of the holders that keep nothing alive."""
    return ", ".join(holder.value for holder in Holder if not any(KEEPS[holder]))


TABLES: dict[str, Callable[[], str]] = {
    "lifetimes": _lifetimes,
    "access": _access,
    "sync access": _sync_access,
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
"""The text between `<!-- generated: NAME -->` and `<!-- end generated -->` in a document, by NAME."""
