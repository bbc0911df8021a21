"""Tables of Arrow and data frames, shared through Arrow's stream."""

from __future__ import annotations

import gc
from typing import Any

import pytest

import extmem
from extmem.errors import UnsupportedError

numpy = pytest.importorskip("numpy", reason="NumPy is not installed")
pyarrow: Any = pytest.importorskip("pyarrow", reason="PyArrow is not installed")


def table() -> Any:
    return pyarrow.table(
        {
            "name": ["a", None, "ccc"],
            "value": pyarrow.array([1.5, 2.5, None]),
            "list": pyarrow.array([[1], [], [2, 3]], pyarrow.list_(pyarrow.int16())),
        }
    )


def test_a_table_arrives_without_a_copy() -> None:
    with extmem.share(table(), "frame", metadata={"by": "me"}) as memory, extmem.open("frame") as opened:
        found = opened.arrow()
        assert found.equals(table())
        assert opened.metadata["by"] == "me"
        assert isinstance(memory.copied, str)
        start = opened.numpy()["arrow"].__array_interface__["data"][0]
        chunks = [chunk for column in found.columns for chunk in column.chunks]
        buffers = [buffer for chunk in chunks for buffer in chunk.buffers() if buffer is not None and buffer.size]
        assert buffers
        assert all(start <= buffer.address < start + opened.size for buffer in buffers)
        with pytest.raises(extmem.LiveViewError):
            opened.close()
        del found, chunks, buffers
        gc.collect()


def test_an_object_with_the_stream_of_arrow_is_a_table() -> None:
    class Frame:
        columns = ("x",)

        def __arrow_c_stream__(self, requested_schema: object = None) -> object:
            return pyarrow.table({"x": [1, 2]}).__arrow_c_stream__(requested_schema)

    with extmem.share(Frame()) as memory:
        found = memory.arrow()
        assert found.column("x").to_pylist() == [1, 2]
        del found
        gc.collect()


def test_an_empty_table() -> None:
    with extmem.share(table().slice(0, 0)) as memory:
        found = memory.arrow()
        assert found.num_rows == 0
        assert found.schema == table().schema
        del found
        gc.collect()


def test_refusals() -> None:
    with pytest.raises(UnsupportedError, match="its columns become one stream"):
        extmem.share(table(), copy=False)
    with (
        extmem.share({"arrow": numpy.ones(3, "uint8")}) as memory,
        pytest.raises(UnsupportedError, match="not a table"),
    ):
        memory.arrow()


def inside(found: Any, memory: extmem.NamedArrays) -> bool:
    """Return whether all buffers of a table are in the memory."""
    start = memory.map().obj and memory.numpy()["arrow"].__array_interface__["data"][0]
    chunks = [chunk for column in found.columns for chunk in column.chunks]
    buffers = [buffer for chunk in chunks for buffer in chunk.buffers() if buffer is not None and buffer.size]
    return all(start <= each.address and each.address + each.size <= start + memory.size for each in buffers)


NUMBERS = list(range(1000))
TABLES = {
    "texts and nulls": lambda: pyarrow.table({"a": ["x", None, "é" * 50, ""], "b": pyarrow.array([None] * 4, "int8")}),
    "large texts, views and bytes": lambda: pyarrow.table(
        {
            "large": pyarrow.array(["a", None, "b" * 99], pyarrow.large_string()),
            "view": pyarrow.array(["a", None, "c" * 99], pyarrow.string_view()),
            "bytes": pyarrow.array([b"\0", b"", None]),
            "fixed": pyarrow.array([b"abc", b"def", None], pyarrow.binary(3)),
        }
    ),
    "times": lambda: pyarrow.table(
        {
            "zone": pyarrow.array([0, None, 10**15], pyarrow.timestamp("us", "Europe/Berlin")),
            "day": pyarrow.array([1, 2, None], pyarrow.date32()),
            "took": pyarrow.array([1, 2, None], pyarrow.duration("ns")),
            "money": pyarrow.array([None, 5, 7], pyarrow.decimal128(20, 2)),
        }
    ),
    "a dictionary": lambda: pyarrow.table({"d": pyarrow.array(["a", "b", None, "a"]).dictionary_encode()}),
    "a dictionary that changes between chunks": lambda: pyarrow.table(
        {"d": pyarrow.chunked_array([pyarrow.array(v).dictionary_encode() for v in (["a", "b"], ["c", None, "b"])])}
    ),
    "nested": lambda: pyarrow.table({"n": [{"x": [1, 2], "y": {"z": "q"}}, None, {"x": None, "y": {"z": None}}]}),
    "a map": lambda: pyarrow.table({"m": pyarrow.array([[("k", 1)], []], pyarrow.map_("string", "int32"))}),
    "chunks": lambda: pyarrow.table({"a": pyarrow.chunked_array([[1, 2], [], [3]])}),
    "no columns": lambda: pyarrow.table({}),
    "no rows": lambda: pyarrow.table({"a": pyarrow.array([], "float64"), "s": pyarrow.array([], "string")}),
    "a slice": lambda: pyarrow.table({"a": NUMBERS, "s": list(map(str, NUMBERS))}).slice(10, 5),
    "booleans": lambda: pyarrow.table({"a": [True, None, False] * 7}),
    "half floats": lambda: pyarrow.table({"a": pyarrow.array([numpy.float16(1.5), None], "float16")}),
    "metadata": lambda: pyarrow.table({"a": [1]}).replace_schema_metadata({"by": "me"}),
}


@pytest.mark.parametrize("kind", TABLES)
def test_each_kind_of_column_arrives_in_place(kind: str) -> None:
    given = TABLES[kind]()
    with extmem.share(given, "frame"), extmem.open("frame") as opened:
        assert isinstance(opened, extmem.NamedArrays)
        found = opened.arrow()
        assert found.schema.equals(given.schema, check_metadata=True)
        assert found.equals(given)
        assert inside(found, opened)
        found.validate(full=True)
        assert opened.tree().equals(given)
        del found
        gc.collect()


def test_the_check_of_addresses_finds_a_copy() -> None:
    with extmem.share(table()) as memory:
        copied = pyarrow.table(memory.arrow().to_pydict())
        assert not inside(copied, memory)
        gc.collect()


def test_a_slice_costs_its_rows_only() -> None:
    whole = pyarrow.table({"a": numpy.arange(1_000_000)})
    with extmem.share(whole.slice(500_000, 10)) as memory:
        assert memory.size < 4096


def test_batches_and_readers_are_tables() -> None:
    batch = pyarrow.record_batch({"a": [1, 2, None]})
    for given in (
        batch,
        pyarrow.Table.from_batches([batch, batch]).to_reader(),
        pyarrow.RecordBatchReader.from_batches(batch.schema, [batch]),
    ):
        with extmem.share(given) as memory:
            assert memory.arrow().column("a").to_pylist()[:3] == [1, 2, None]
            gc.collect()


def test_columns_of_the_table_are_arrays_in_place() -> None:
    with extmem.share(pyarrow.table({"a": numpy.arange(5.0)})) as memory:
        array = memory.arrow().column("a").chunk(0).to_numpy(zero_copy_only=True)
        start = memory.numpy()["arrow"].__array_interface__["data"][0]
        assert start <= array.__array_interface__["data"][0] < start + memory.size
        assert not array.flags.writeable
        del array
        gc.collect()


def test_a_column_alone_is_an_array_if_it_has_no_nulls() -> None:
    with extmem.share(pyarrow.array([1, 2])) as memory:
        assert memory.dtype == "int64" and memory.numpy().tolist() == [1, 2]
    for column in (pyarrow.array([1, None]), pyarrow.chunked_array([[1], [None]])):
        with pytest.raises(UnsupportedError, match="has 1 nulls, .* share a table"):
            extmem.share(column)
    with pytest.raises(TypeError, match="Python objects .* share a table with this column"):
        extmem.share(pyarrow.array(["a"]))


def test_a_table_in_a_tree_is_refused_with_its_place() -> None:
    with pytest.raises(UnsupportedError, match=r"the Table at .*'t'.* is a table, which is shared alone"):
        extmem.share({"t": table(), "x": numpy.ones(2)})


def test_bytes_that_are_no_table_are_refused() -> None:
    mark = {"extmem.format": "arrow-stream"}
    whole = pyarrow.BufferOutputStream()
    with pyarrow.ipc.new_stream(whole, table().schema) as writer:
        writer.write_table(table())
    stream = numpy.frombuffer(whole.getvalue(), "uint8")
    with extmem.share({"arrow": stream}, metadata=mark) as memory:
        assert memory.arrow().equals(table())
        gc.collect()
    for wrong in (stream[:-100], stream[:9], numpy.zeros(64, "uint8"), numpy.full(64, 255, "uint8"), stream[8:]):
        with extmem.share({"arrow": wrong}, metadata=mark) as memory:
            with pytest.raises(extmem.DescriptorError, match="said to hold a table of Arrow"):
                memory.arrow()
            gc.collect()
