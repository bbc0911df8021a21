"""`docs/wire.md` describes the format of the code: numbers, fields, types, defaults, descriptors, bounds."""

from __future__ import annotations

import re
import types
from typing import Any, get_args, get_origin

import msgspec
import pytest

from extmem import wire
from extmem.wire import limits, replies, requests
from tests.meta.tools import ROOT

PAGE = (ROOT / "docs" / "wire.md").read_text()
TYPES = (
    "U8", "U32", "Count", "I64", "Pid", "Name", "Sddl", "Text", "Word", "Payload", "Record", "Facts", "Secret",
    "KeyBytes", "TicketBytes",
)  # fmt: skip
BY_TYPE = {getattr(limits, name): name for name in TYPES}


def table(name: str) -> list[list[str]]:
    text = re.search(rf"<!-- wire: {name} -->\n(.*?)<!-- end wire -->", PAGE, re.DOTALL)
    assert text is not None
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in text[1].strip().splitlines()[2:]]


def named(kind: Any) -> str:
    if kind is bool:
        return "`bool`"
    if kind in BY_TYPE:
        return f"`{BY_TYPE[kind]}`"
    if get_origin(kind) is types.UnionType or type(None) in get_args(kind):
        return f"{named(next(k for k in get_args(kind) if k is not type(None)))} or nil"
    inner, meta = get_args(kind)  # the only other field type: a bounded list of integers
    assert get_origin(inner) is tuple and get_args(inner)[1] is ..., kind
    return f"up to {meta.max_length:,} {named(get_args(inner)[0])}"


def field(f: msgspec.structs.FieldInfo) -> str:
    kind = named(f.type)
    text = f"{f.name}: {kind}" if kind.startswith("up to") else f"{f.name} {kind}"
    text = text.replace(" or nil", ", or nil") if kind.startswith("up to") else text
    if f.default is msgspec.NODEFAULT:
        return text
    default = {None: "nil", b"": "empty", (): "empty"}.get(f.default, str(f.default).lower())
    return f"{text} = {default}"


def fields(message: type[msgspec.Struct]) -> str:
    return ", ".join(field(f) for f in msgspec.structs.fields(message))


_BY_FIELD = {
    "Export": "the last handles",
    "AnnounceRecord": "the last handles",
    "Imported": "fds",
    "Handle": "the first handles if mode is not 0",
    "Fds": "count",
    "Duplicate": "1 if into",
    "AnnounceTicket": "1 if bound",
}


@pytest.mark.parametrize(("name", "module"), [("requests", requests), ("replies", replies)])
def test_the_tables_of_messages(name: str, module: types.ModuleType) -> None:
    rows = {row[1].strip("`"): row for row in table(name)}
    assert list(rows) == sorted(rows, key=lambda message: int(rows[message][0]))
    assert set(rows) == set(module.__all__)
    for message, row in rows.items():
        struct = getattr(module, message)
        assert row[0] == str(struct.__struct_config__.tag), message
        assert row[2] == fields(struct), message
        fds = _BY_FIELD.get(message, str(wire.FDS.get(struct, 0)))
        assert row[3] == fds, message


def test_every_answer_is_a_reply() -> None:
    for row in table("requests"):
        answers = re.findall(r"`(\w+)`", row[4])
        assert answers and set(answers) <= set(replies.__all__), row[1]


def test_the_table_of_types() -> None:
    rows = {row[0].strip("`"): row[2] for row in table("types")}
    assert set(rows) == {"bool", *TYPES}
    for name in TYPES:
        meta = get_args(getattr(limits, name))[1]
        if meta.le is not None:
            expected = f"{meta.ge} … {meta.le:,}"
        elif meta.min_length is not None:
            expected = f"{meta.min_length} bytes"
        else:
            unit = "characters" if get_args(getattr(limits, name))[0] is str else "bytes"
            expected = f"at most {meta.max_length:,} {unit}"
        assert rows[name] == expected


def test_records_and_facts_are_reported_field_by_field() -> None:
    for word, struct in (("Record", wire.HolderRecord), ("Facts", wire.ImportFacts)):
        text = re.search(rf"- \*\*{word}\*\*[^:]*: (.*?)(?=\n\n|\n- )", PAGE, re.DOTALL)
        assert text is not None
        flat = " ".join(re.sub(r" \([^)]*\)", "", text[1]).split())
        assert flat.startswith(fields(struct)), flat


def test_the_numbers_in_the_text() -> None:
    from extmem.broker import client_journal, listening, run, sessions, tickets

    for fact in (
        f"at most {wire.MAX_MESSAGE:,} bytes",
        f"version {wire.PROTOCOL_VERSION}.",
        {5.0: "within five seconds"}[listening.PATIENCE],
        {4: "most four replies"}[sessions._QUEUE_LIMIT],
        {60.0: "for 60 seconds"}[tickets.SECONDS],
        {2.0: "for two seconds at most"}[client_journal.WINDOW],
        {10.0: "for ten seconds"}[run.IDLE],
    ):
        assert fact in " ".join(PAGE.split()), fact
