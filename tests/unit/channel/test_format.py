"""`SlotFormat`: what a frame holds, and what `put` and `reconfigure` take."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import extmem
from extmem import ChannelWriter


def publish(writer: ChannelWriter, count: int = 1) -> None:
    for _ in range(count):
        writer.write().publish()


_WHOLE = np.arange(4, dtype="uint8").reshape(2, 2)


@pytest.mark.parametrize(
    "given", [_WHOLE, _WHOLE.tobytes(), bytearray(_WHOLE), memoryview(_WHOLE), _WHOLE.T.copy().T, [[0, 1], [2, 3]]]
)
def test_put_takes_a_whole_frame(name: str, given: Any) -> None:
    with extmem.create_channel(name, (2, 2)) as writer, extmem.open_channel(name) as reader:
        assert writer.put(given) == 1
        assert reader.read().numpy().tolist() == [[0, 1], [2, 3]]


@pytest.mark.parametrize(
    ("given", "error", "text"),
    [
        (_WHOLE[:1], ValueError, r"shape \(1, 2\)"),
        (_WHOLE.reshape(4), ValueError, r"shape \(4,\)"),
        (b"12", ValueError, "2 bytes.*has 4"),
        (b"12345", ValueError, "5 bytes.*has 4"),
        (memoryview(b""), ValueError, "0 bytes.*has 4"),
        ([1, 2, 3, 4], ValueError, r"\(4,\)"),
        (_WHOLE.astype("int8"), TypeError, "int8"),
        (None, TypeError, "no array"),
        ({"a": _WHOLE}, TypeError, r"\['a'\]"),
    ],
)
@pytest.mark.parametrize("full", [False, True])
def test_put_refuses_what_is_no_whole_frame(
    name: str, given: Any, error: type[Exception], text: str, full: bool
) -> None:
    with extmem.create_channel(name, (2, 2), slots=1) as writer, extmem.open_channel(name) as reader:
        writer.put(_WHOLE)
        held = reader.read() if full else None
        with pytest.raises(error, match=text):
            writer.put(given)
        with pytest.raises(TypeError, match=r"keywords \['metadata'\].*meta="):
            writer.put(_WHOLE, metadata=b"x")
        assert (writer.count, writer.dropped) == (1, 0)
        assert held is None or writer.put(_WHOLE) == 0


@pytest.mark.parametrize("full", [False, True])
def test_put_refuses_other_arrays_than_those_of_a_frame(name: str, full: bool) -> None:
    with extmem.create_channel(name, {"a": (2, 2), "b": 3}, slots=1) as writer, extmem.open_channel(name) as reader:
        b = np.zeros(3, "uint8")
        writer.put(a=_WHOLE, b=b)
        held = reader.read() if full else None
        wrong: list[tuple[Any, dict[str, Any], type[Exception]]] = [
            (_WHOLE, {}, TypeError),
            ({"a": _WHOLE}, {}, ValueError),
            ({"a": _WHOLE, "b": b}, {"a": _WHOLE}, ValueError),
            ({"a": _WHOLE, "b": b}, {"metadata": b"x"}, ValueError),
            ({"a": _WHOLE.reshape(4), "b": b}, {}, ValueError),
            ({"a": _WHOLE, "b": b"12"}, {}, ValueError),
            ({"a": _WHOLE, "b": 5}, {}, TypeError),
        ]
        for array, arrays, error in wrong:
            with pytest.raises(error):
                writer.put(array, **arrays)
        assert (writer.count, writer.dropped) == (1, 0)
        assert writer.put({"a": _WHOLE}, b=b) == (0 if held else 2)


def test_more_arrays_than_a_page_can_list_are_refused(name: str) -> None:
    with pytest.raises(ValueError, match="65536 is the limit"):
        extmem.create_channel(name, {f"a{index}": 3 for index in range(5000)})
    extmem.create_channel(name, {f"a{index}": 3 for index in range(500)}, slots=1).close()


def test_reconfigure_keeps_the_element_types_that_there_are(name: str) -> None:
    with extmem.create_channel(name, {"a": 4, "b": (2, "float32")}, slots=1) as writer:
        with extmem.open_channel(name) as reader:
            writer.reconfigure({"a": (2, 2), "b": 8})
            publish(writer)
            kinds = {key: (one.shape, str(one.dtype)) for key, one in reader.read().numpy().items()}
            assert kinds == {"a": ((2, 2), "uint8"), "b": ((8,), "float32")}
            for change, text in (
                ({"dtype": "float32"}, "several arrays"),
                ({"shape": {"a": 4, "z": 4}}, "'z' is new"),
                ({"shape": 16}, "the dtype of the one array"),
            ):
                with pytest.raises(ValueError, match=text):
                    writer.reconfigure(**change)  # type: ignore[arg-type]
            writer.reconfigure({"a": 4, "z": (4, "int16")}, slots=np.int64(2))
            assert writer.slots == 2
            writer.reconfigure({"z": 4, "y": 2}, "float64")
            publish(writer)
            assert {str(one.dtype) for one in reader.read().numpy().values()} == {"float64"}
            writer.reconfigure(3, "int32")
            writer.reconfigure((3, 1))
            assert (writer.shape, writer.dtype) == ((3, 1), "int32")
            writer.reconfigure({"k": 2})
            publish(writer)
            assert str(reader.read()["k"].numpy().dtype) == "int32"


@pytest.mark.parametrize("shape", [(4, 5), (np.int64(4), np.int64(5)), (np.uint8(4), 5), [4, np.int16(5)]])
def test_a_shape_of_integers_of_any_type(name: str, shape: Any) -> None:
    with extmem.create_channel(name, {"color": shape, "typed": (shape, np.float32)}, slots=1) as writer:
        with writer.write() as frame:
            kinds = {key: (one.shape, str(one.dtype)) for key, one in frame.numpy().items()}
        assert kinds == {"color": ((4, 5), "uint8"), "typed": ((4, 5), "float32")}
    with extmem.create_channel(name, shape, slots=np.int64(1)) as one_array:
        assert (one_array.shape, one_array.slots) == ((4, 5), 1)
