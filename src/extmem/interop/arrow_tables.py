"""Arrow tables, and data frames through Arrow: one array of bytes with an IPC stream, which is read without a copy.

How this works. The stream contains the schema and the buffers of all columns, aligned to 8 bytes as Arrow requires, so
a reader gets a table whose buffers are the payload itself. Any object with `__arrow_c_stream__` can be shared: tables
of PyArrow, data frames of pandas and Polars. PyArrow writes and reads the stream; it is imported at its first use.

A column alone (a series) is shared as an array, where it has plain values and no nulls: an array has no nulls.
"""

from __future__ import annotations

import sys
from typing import Any, Final

from extmem import optional
from extmem.errors import DescriptorError, UnsupportedError
from extmem.interop.numpy_views import numpy_module

__all__ = [
    "ENTRY",
    "FORMAT",
    "MARK",
    "is_column",
    "is_table",
    "read",
    "refuse_as_array",
    "size_of",
    "table_of",
    "write",
]

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


def is_column(value: object) -> bool:
    """Return whether it is a column with a type of Arrow: a series, an array of Arrow."""
    return (hasattr(value, "__arrow_c_stream__") or hasattr(value, "__arrow_c_array__")) and not is_table(value)


def refuse_as_array(value: Any, what: str) -> None:
    """Refuse a table as an array of a tree, and a column with nulls, whose values would become others.

    what: it, for the message. Errors: UnsupportedError.
    """
    if is_table(value):
        raise UnsupportedError(
            f"{what} is a table, which is shared alone: extmem.share(table); in a tree, share its columns as arrays",
            requires_one_of=["a table alone", "arrays"],
        )
    count = _nulls(value)
    if count:
        raise UnsupportedError(
            f"{what} has {count} nulls, which an array cannot have; share a table with this column: "
            "value.to_frame(), or pyarrow.table({'name': value}); or fill the nulls",
            requires_one_of=["a table", "a column without nulls"],
        )


def _nulls(value: Any) -> int:
    """Return how many values of a column are null. Plain arrays have none: NaN and NaT are values of theirs."""
    if is_column(value):  # of PyArrow and of Polars
        nulls = getattr(value, "null_count", 0)
        if count := int(nulls() if callable(nulls) else nulls):
            return count
    missing = getattr(value, "isna", None)  # pandas: only the types of its own have nulls
    if missing is None or isinstance(getattr(value, "dtype", None), numpy_module().dtype):
        return 0
    return int(missing().sum())


def table_of(value: Any) -> Any:
    """Return a table of PyArrow with the columns of a table or data frame.

    Errors: UnsupportedError without PyArrow, and for columns that Arrow has no type for (objects of mixed types), with
    their names; ValueError for two columns of one name, where the library of the data frame refuses them.
    """
    pyarrow = _pyarrow()
    objects = _columns_of_objects(value)
    if objects:
        raise _no_arrow_type(value, f"column {', '.join(map(repr, objects))} holds Python objects")
    try:
        return value if isinstance(value, pyarrow.Table) else pyarrow.table(value)
    except (pyarrow.ArrowInvalid, pyarrow.ArrowTypeError, pyarrow.ArrowNotImplementedError) as error:
        raise _no_arrow_type(value, "; ".join(map(str, reversed(error.args)))) from error


def _columns_of_objects(value: Any) -> list[str]:
    """Return the columns of Python objects of a frame of Polars, which exports their addresses."""
    polars: Any = sys.modules.get("polars")
    if polars is None or not isinstance(value, polars.DataFrame):
        return []
    return [name for name, dtype in value.schema.items() if dtype == polars.Object]


def _no_arrow_type(value: Any, reason: str) -> UnsupportedError:
    return UnsupportedError(
        f"this {type(value).__name__} has values that Arrow has no type for: {reason}. Convert that column first "
        "(column.astype), or leave it out",
        requires_one_of=["columns of plain values"],
    )


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
    """Return the table in a buffer, zero copy; its buffers keep the buffer alive.

    The sizes of all buffers are checked, and not the values: `table.validate(full=True)` checks those of a publisher
    that may lie. Errors: DescriptorError for bytes that are no such stream; UnsupportedError without PyArrow, and for
    types that this PyArrow lacks.
    """
    pyarrow = _pyarrow()
    try:
        with _pyarrow("pyarrow.ipc").open_stream(pyarrow.py_buffer(octets)) as reader:
            table = reader.read_all()
        table.validate()
    except pyarrow.ArrowNotImplementedError as error:
        raise UnsupportedError(
            f"PyArrow {pyarrow.__version__} cannot read this table: {error}; install a newer one",
            requires_one_of=["a newer PyArrow"],
        ) from error
    except (pyarrow.ArrowInvalid, pyarrow.ArrowSerializationError, OSError) as error:
        raise DescriptorError(
            f"this memory is said to hold a table of Arrow, and its bytes are none: {error}; the process that shared "
            "it wrote something else, or is still writing"
        ) from error
    return table
