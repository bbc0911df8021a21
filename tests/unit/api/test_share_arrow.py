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
