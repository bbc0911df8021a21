"""Arrow tables, and data frames through Arrow: one array of bytes with an IPC stream, which is read without a copy.

How this works. The stream contains the schema and the buffers of all columns, aligned to 64 bytes, so a reader gets a
table whose buffers are the payload itself. Any object with `__arrow_c_stream__` can be shared: tables of PyArrow, data
frames of pandas and Polars. PyArrow writes and reads the stream; it is imported at its first use.
"""

from __future__ import annotations

from typing import Any, Final

from extmem import optional
from extmem.errors import UnsupportedError

__all__ = ["ENTRY", "FORMAT", "MARK", "is_table", "read", "size_of", "table_of", "write"]

ENTRY: Final = "arrow"
"""The name of the array with the stream."""
MARK: Final = "extmem.format"
FORMAT: Final = "arrow-stream"
"""What the metadata of a payload with such a stream have under `MARK`."""


def _pyarrow(module: str = "pyarrow") -> Any:
    return optional.load(
        module, what="PyArrow", advice="data frames and Arrow tables need it: pip install pyarrow", package="pyarrow"
    )


def is_table(value: object) -> bool:
    """Return whether it is a table or data frame, rather than an array."""
    return hasattr(value, "__arrow_c_stream__") and (hasattr(value, "columns") or hasattr(value, "schema"))


def table_of(value: Any) -> Any:
    """Return a table of PyArrow with the columns of a table or data frame.

    Errors: UnsupportedError without PyArrow, and for columns that Arrow has no type for (objects of mixed types).
    """
    pyarrow = _pyarrow()
    try:
        return value if isinstance(value, pyarrow.Table) else pyarrow.table(value)
    except (pyarrow.ArrowInvalid, pyarrow.ArrowTypeError, pyarrow.ArrowNotImplementedError) as error:
        raise UnsupportedError(
            f"a column of this {type(value).__name__} has values that Arrow has no type for: {error}; convert it first "
            "(column.astype), or leave it out",
            requires_one_of=["columns of plain values"],
        ) from error


def size_of(table: Any) -> int:
    """Return the bytes of the stream."""
    sink = _pyarrow().MockOutputStream()
    with _pyarrow("pyarrow.ipc").new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    return int(sink.size())


def write(table: Any, octets: memoryview) -> None:
    """Write the stream into a buffer of its size."""
    pyarrow = _pyarrow()
    sink = pyarrow.FixedSizeBufferWriter(pyarrow.py_buffer(octets))
    with _pyarrow("pyarrow.ipc").new_stream(sink, table.schema) as writer:
        writer.write_table(table)


def read(octets: Any) -> Any:
    """Return the table in a buffer, zero copy; its buffers keep the buffer alive."""
    pyarrow = _pyarrow()
    with _pyarrow("pyarrow.ipc").open_stream(pyarrow.py_buffer(octets)) as reader:
        return reader.read_all()
