"""Data frames of pandas and Polars, shared through Arrow, and what each of them gets back."""

from __future__ import annotations

import gc
from typing import Any

import pytest

import extmem
from extmem.errors import UnsupportedError

numpy: Any = pytest.importorskip("numpy", reason="NumPy is not installed")
pyarrow: Any = pytest.importorskip("pyarrow", reason="PyArrow is not installed")


@pytest.fixture
def pandas() -> Any:
    return pytest.importorskip("pandas", reason="pandas is not installed")


@pytest.fixture
def polars() -> Any:
    return pytest.importorskip("polars", reason="Polars is not installed")


def test_a_frame_of_pandas_comes_back_equal(pandas: Any) -> None:
    frame = pandas.DataFrame(
        {
            "number": [1, 2, 3],
            "text": ["x", None, "zz"],
            "time": pandas.to_datetime(["2026-01-01", None, "2026-02-02"]),
            "zone": pandas.to_datetime(["2026-01-01", None, "2026-02-02"]).tz_localize("Europe/Berlin"),
            "kind": pandas.Categorical(["p", "q", "p"]),
            "nullable": pandas.array([1, None, 3], "Int64"),
            "flag": [True, False, True],
        },
        index=pandas.Index(["i", "j", "k"], name="key"),
    )
    with extmem.share(frame, "frame", metadata={"step": 1}), extmem.open("frame") as opened:
        pandas.testing.assert_frame_equal(opened.arrow().to_pandas(), frame)
        assert opened.metadata["step"] == 1
        gc.collect()
    with extmem.share(frame.iloc[1:2]) as memory:
        pandas.testing.assert_frame_equal(memory.arrow().to_pandas(), frame.iloc[1:2])
        gc.collect()
    with extmem.share(frame[["number"]].iloc[:0]) as memory:
        assert memory.arrow().num_rows == 0
        gc.collect()


def test_columns_of_objects_are_refused_by_name(pandas: Any) -> None:
    with pytest.raises(UnsupportedError, match=r"DataFrame has values .* column mixed with type object.*astype"):
        extmem.share(pandas.DataFrame({"good": [1, 2, 3], "mixed": [1, "a", 2.0]}))
    with pytest.raises(UnsupportedError, match="column things with type object"):
        extmem.share(pandas.DataFrame({"things": [object(), object()]}))
    with extmem.share(pandas.DataFrame({"texts": pandas.Series(["a", None], dtype=object)})) as memory:
        assert memory.arrow().column("texts").to_pylist() == ["a", None]
        gc.collect()


def test_two_columns_of_one_name_are_refused(pandas: Any) -> None:
    with pytest.raises(ValueError, match="Duplicate column names"):
        extmem.share(pandas.DataFrame([[1, 2]], columns=["a", "a"]))


def test_a_series_of_pandas_is_an_array(pandas: Any) -> None:
    with extmem.share(pandas.Series([1.5, 2.5])) as memory:
        assert memory.numpy().tolist() == [1.5, 2.5]
    with pytest.raises(TypeError, match="share a table with this column"):
        extmem.share(pandas.Series(["a", "b"]))
    with extmem.share(pandas.Series([1.5, numpy.nan])) as memory:
        assert numpy.isnan(memory.numpy()[1]), "NaN is a value of float64"
    for column in (pandas.Series([1, None], dtype="Int64"), pandas.array([True, None], "boolean")):
        with pytest.raises(UnsupportedError, match="has 1 nulls, .* share a table with this column"):
            extmem.share(column)
    with extmem.share(pandas.array([1, 2], "Int64")) as memory:
        assert memory.numpy().tolist() == [1, 2]


def test_a_frame_of_polars_comes_back_equal(polars: Any) -> None:
    frame = polars.DataFrame(
        {
            "number": [1, None, 3],
            "text": ["x", None, "z" * 50],
            "list": [[1], [], [2, 3]],
            "pair": [{"a": 1, "b": "x"}, None, {"a": None, "b": "y"}],
        }
    ).with_columns(kind=polars.Series(["p", "q", "p"], dtype=polars.Categorical))
    with extmem.share(frame, "frame"), extmem.open("frame") as opened:
        assert polars.from_arrow(opened.arrow()).equals(frame)
        gc.collect()
    with extmem.share(frame[1:2]) as memory:
        assert polars.from_arrow(memory.arrow()).equals(frame[1:2])
        gc.collect()
    with extmem.share(frame.clear()) as memory:
        assert memory.arrow().num_rows == 0
        gc.collect()


def test_objects_of_polars_are_refused_by_name(polars: Any) -> None:
    """Polars exports their addresses as bytes."""
    with pytest.raises(UnsupportedError, match="DataFrame has values .*: column 'things' holds Python objects"):
        extmem.share(polars.DataFrame({"plain": [1], "things": [object()]}))


def test_a_series_of_polars_is_an_array_if_it_has_no_nulls(polars: Any) -> None:
    with extmem.share(polars.Series("x", [1, 2])) as memory:
        assert memory.numpy().tolist() == [1, 2]
    with pytest.raises(UnsupportedError, match="has 1 nulls"):
        extmem.share(polars.Series("x", [1, None]))


def test_a_reader_of_another_library(pandas: Any, polars: Any) -> None:
    with extmem.share(pandas.DataFrame({"a": [1, 2], "s": ["x", "y"]}), "frame"), extmem.open("frame") as opened:
        assert polars.from_arrow(opened.arrow()).rows() == [(1, "x"), (2, "y")]
        gc.collect()
