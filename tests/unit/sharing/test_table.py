"""The table of named arrays: what is placed is decoded, and every lie is refused with the entry's name."""

from __future__ import annotations

import random
import struct
import tracemalloc
import zlib
from typing import Any

import msgspec
import pytest

from extmem.errors import DescriptorError
from extmem.sharing import table
from extmem.sharing.table import Scalar, Spec, Table


def framed(body: bytes, *, length: int | None = None) -> bytes:
    return struct.pack("<8sII", b"EXTMTBL\x01", len(body) if length is None else length, zlib.crc32(body)) + body


def raw(entries: list[list[Any]], *, align: int = 256, **more: Any) -> bytes:
    return framed(msgspec.json.encode({"align": align, "entries": entries, **more}))


def test_what_was_placed_is_decoded() -> None:
    specs = [
        Spec("encoder.weight", "float32", (3, 4)),
        Spec("encoder.bias", "bfloat16", (4,)),
        Spec("decoder.weight", "float32", (3, 4), None, 0),
        Spec("scalar", "int64", ()),
        Spec("nothing", "float64", (0, 7)),
        Spec("columns", "int16", (5, 3), (2, 10)),
        Spec("packed", "int4_packed", (7,)),
    ]
    entries, size = table.place(specs)
    tree = {"d": {"encoder": {"d": {"weight": 0, "bias": 1}}, "rest": {"l": [2, {"t": [3, 4]}]}, "x": {"d": {}}}}
    made = Table(entries, 256, {"step": 12, "note": "ü", "rate": 0.5, "done": True, "none": None}, tree)
    found = table.decode(table.encode(made) + bytes(4096), size)
    assert found == made
    assert [entry.offset for entry in entries] == [0, 256, 0, 512, 768, 768, 1024]
    assert size == 1024 + 4


def test_a_payload_of_empty_arrays_has_one_byte() -> None:
    entries, size = table.place([Spec("a", "float32", (0,)), Spec("b", "int8", (2, 0))])
    assert size == 1
    assert table.decode(table.encode(Table(entries)), size).entries == entries


def test_the_same_name_twice_is_not_placed() -> None:
    with pytest.raises(ValueError, match=r"'a\.b' is the name of two arrays"):
        table.place([Spec("a.b", "int8", (1,)), Spec("a.b", "int8", (1,))])


def test_arrays_are_aligned_for_their_elements_at_least() -> None:
    entries, size = table.place([Spec("a", "int8", (3,)), Spec("b", "complex128", (1,)), Spec("c", "bytes3", (1,))], 1)
    assert [entry.offset for entry in entries] == [0, 16, 32]
    assert table.decode(table.encode(Table(entries, 1)), size).entries == entries


def test_an_alignment_that_is_no_power_of_two_is_refused() -> None:
    with pytest.raises(ValueError, match="align is 48"):
        table.place([], 48)
    assert table.place([Spec("a", "int8", (3,)), Spec("b", "int8", (1,))], 64)[0][1].offset == 64


ROW = ["w", "float32", [4], 0, 16]
LIES = {
    "beyond the payload": ([["w", "float32", [4], 256, 16]], 256 + 15, "entry 'w' is at bytes 256 to 272 of a payload"),
    "a terabyte": ([["w", "uint8", [1 << 40], 0, 1 << 40]], 4096, "entry 'w' is at bytes 0 to 1099511627776"),
    "offset and size overflow": ([["w", "uint8", [8], (1 << 64) - 4, 8]], 4096, "entry 'w' is at bytes"),
    "a negative offset": ([["w", "uint8", [8], -8, 8]], 4096, "entry 'w' is at bytes -8"),
    "a partial overlap": ([ROW, ["v", "float32", [4], 8, 16]], 24, "entry 'v' is at bytes 8 to 24 and shares a part"),
    "a shorter one at the same place": ([ROW, ["v", "float32", [2], 0, 8]], 16, "shares a part"),
    "a hole": ([ROW, ["v", "float32", [4], 512, 16]], 528, "496 bytes before entry 'v' that belong to no entry"),
    "a hole at the end": ([ROW], 1024, "the last 1008 bytes of the payload belong to no entry"),
    "a type that does not divide": ([["w", "float32", [4], 0, 15]], 15, "entry 'w' has 15 bytes"),
    "an offset inside an element": ([["v", "int8", [2], 0, 2], ["w", "float32", [4], 2, 16]], 18, "not a multiple"),
    "an unknown type": ([["w", "float33", [4], 0, 16]], 16, "entry 'w': 'float33' is not the text"),
    "objects": ([["w", "object", [2], 0, 16]], 16, "entry 'w': 'object' is not"),
    "a negative extent": ([["w", "float32", [-4], 0, 16]], 16, "entry 'w': the shape is"),
    "extents whose product overflows": ([["w", "uint8", [1 << 62, 4], 0, 0]], 16, "entry 'w': the shape"),
    "strides that overlap": ([["w", "float32", [4, 4], 0, 28, [4, 4]]], 28, "entry 'w': the strides"),
    "a negative stride": ([["w", "float32", [4], 0, 16, [-4]]], 16, "entry 'w': the strides"),
    "strides for other axes": ([["w", "float32", [4], 0, 16, [4, 4]]], 16, "entry 'w': there are 2 strides"),
    "strides of packed elements": ([["w", "int4_packed", [4], 0, 2, [1]]], 2, "entry 'w': elements of int4_packed"),
    "the same name twice": ([ROW, ["w", "float32", [4], 256, 16]], 272, "two entries have the name 'w'"),
}


@pytest.mark.parametrize("lie", LIES)
def test_a_lie_is_refused_with_the_name_of_the_entry(lie: str) -> None:
    entries, size, reason = LIES[lie]
    with pytest.raises(DescriptorError, match=reason.replace("(", r"\(")):
        table.decode(raw(entries), size)


def test_the_plain_twin_of_the_lies_is_accepted() -> None:
    found = table.decode(raw([ROW, ["v", "float32", [4], 256, 16], ["tied", "int32", [2, 2], 0, 16]]), 272)
    assert [entry.name for entry in found.entries] == ["w", "v", "tied"]


def test_names_that_are_equal_after_decoding_are_refused() -> None:
    body = b'{"align":256,"entries":[["a","int8",[1],0,1],["\\u0061","int8",[1],256,1]]}'
    with pytest.raises(DescriptorError, match="two entries have the name 'a'"):
        table.decode(framed(body), 257)


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "fewer than its header"),
        (b"SAFETENS" + bytes(8), "not the mark of a table"),
        (framed(b"{}", length=1 << 31), "it claims 2147483648 bytes"),
        (framed(b"{}", length=3), "it claims 3 bytes"),
        (framed(b"{}")[:-2] + b"{ ", "checksum"),
        (framed(b"{}"), "not readable"),
        (framed(b"[" * 100_000), "not readable"),
        (raw([], align=3), "alignment is 3"),
        (raw([], tree=0), "entry 0 of 0"),
        (raw([ROW], tree={"x": 0}), "a node that is neither"),
        (raw([ROW], tree={"l": 0}), "a node that is neither"),
        (raw([ROW], tree=True), "a node that is neither"),
    ],
)
def test_bytes_that_are_not_a_table_are_refused(data: bytes, reason: str) -> None:
    with pytest.raises(DescriptorError, match=reason):
        table.decode(data, 16)


def test_a_tree_with_too_many_levels_is_refused() -> None:
    def nested(levels: int) -> Any:
        tree: Any = 0
        for _ in range(levels):
            tree = {"l": [tree]}
        return tree

    assert table.decode(raw([ROW], tree=nested(63)), 16)
    with pytest.raises(DescriptorError, match="more than 64 levels"):
        table.decode(raw([ROW], tree=nested(64)), 16)


def test_a_table_that_claims_a_terabyte_costs_no_memory() -> None:
    entries = [[f"w{n}", "float32", [1 << 36], n << 38, 1 << 38] for n in range(4)]
    data = raw(entries)
    tracemalloc.start()
    with pytest.raises(DescriptorError, match="of a payload of 4096 bytes"):
        table.decode(data, 4096)
    assert tracemalloc.get_traced_memory()[1] < 1 << 20
    tracemalloc.stop()


def test_arbitrary_changes_of_a_table_are_refused_or_harmless() -> None:
    entries, size = table.place(Spec(f"layer.{n}", "float32", (n, 3)) for n in range(6))
    body = bytearray(table.encode(Table(entries, 256, {"a": "b"}, {"l": list(range(6))}))[16:])
    chance = random.Random(17)
    for _ in range(3000):
        changed = bytearray(body)
        for _ in range(chance.randint(1, 3)):
            changed[chance.randrange(len(changed))] = chance.choice(b'0123456789[]{},"-.efint')
        try:
            found = table.decode(framed(bytes(changed)), size)
        except DescriptorError:
            continue
        for entry in found.entries:
            assert 0 <= entry.offset <= entry.offset + entry.nbytes <= size


def test_too_large_metadata_are_refused() -> None:
    with pytest.raises(ValueError, match="the metadata has"):
        table.encode(Table((), 256, {"x": "y" * (1 << 20)}))


@pytest.mark.parametrize("said", [{"x": "\ud800"}, {"\ud800": 1}])
def test_text_that_is_not_unicode_is_refused(said: dict[str, Scalar]) -> None:
    with pytest.raises(ValueError, match="half a character"):
        table.encode(Table((), 256, said))
    entries, _ = table.place([Spec("\udfff", "int8", (1,))])
    with pytest.raises(ValueError, match="half a character"):
        table.encode(Table(entries))


@pytest.mark.slow("a million entries")
def test_a_million_entries() -> None:
    entries, size = table.place((Spec(f"{n}", "float32", (2,)) for n in range(1 << 20)), 8)
    found = table.decode(table.encode(Table(entries, 8)), size)
    assert found.entries == entries
    with pytest.raises(ValueError, match="at most 1048576"):
        table.place((Spec(f"{n}", "int8", (1,)) for n in range((1 << 20) + 1)), 8)


def test_density() -> None:
    assert table.fills_range((3, 4), (16, 4), 4)
    assert table.fills_range((3, 4), (4, 12), 4)
    assert table.fills_range((1, 4), (999, 4), 4)
    assert table.fills_range((0, 4), (1, 1), 4)
    assert not table.fills_range((3, 4), (32, 4), 4)
    assert not table.fills_range((3,), (0,), 4)
