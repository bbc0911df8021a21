"""`extmem.share`: one array or a tree, all or nothing, and what is refused."""

from __future__ import annotations

import array
import gc
import http
import mmap
import subprocess
import sys
import threading
from typing import Any

import pytest

import extmem
from extmem.core import sharing_arrays
from extmem.errors import NameNotFoundError, NameTakenError, UnsupportedError
from extmem.interop import array_sources
from extmem.testing.children import Peer, python_environment

numpy = pytest.importorskip("numpy", reason="NumPy is not installed")

WEIGHTS = {
    "encoder": {"weight": numpy.arange(12, dtype="float32").reshape(3, 4), "bias": numpy.ones(3, "int8")},
    "heads": [numpy.zeros((2, 0), "float64"), numpy.float64(2.5)],
}


def test_an_array_is_copied_with_the_reason() -> None:
    source = numpy.arange(6, dtype="int16").reshape(2, 3)
    with extmem.share(source, "one") as memory:
        assert isinstance(memory.copied, str)
        assert "has no handle" in memory.copied
        source[:] = 0
        with extmem.open("one") as opened:
            assert opened.read_only
            assert opened.copied is False
            assert opened.numpy().tolist() == [[0, 1, 2], [3, 4, 5]]


def test_the_order_of_the_axes_arrives() -> None:
    source = numpy.asfortranarray(numpy.arange(6.0).reshape(2, 3))
    with extmem.share(source) as memory:
        assert memory.numpy().strides == source.strides
        assert (memory.numpy() == source).all()


def test_elements_with_gaps_are_copied_in_row_major_order() -> None:
    source = numpy.arange(20, dtype="int32")[::2][::-1]
    with extmem.share(source) as memory:
        assert memory.size == 40
        assert memory.numpy().tolist() == source.tolist()


@pytest.mark.linux_only("a part of a section has no name")
def test_elements_with_gaps_of_shared_memory_are_shared_where_they_are() -> None:
    with extmem.share(numpy.arange(20, dtype="int32").reshape(4, 5)) as memory:
        view = memory.numpy()
        with extmem.share(view[1:, ::2], copy=False) as part:
            assert part.copied is False and (part.shape, part.strides) == ((3, 3), (20, 8))
            view[1, 2] = 99
            assert part.numpy().tolist() == [[5, 99, 9], [10, 12, 14], [15, 17, 19]]
        with extmem.share(view[:, ::-1]) as copied:
            assert copied.copied
        del view


@pytest.mark.parametrize(
    "source", [b"bytes", bytearray(b"more"), memoryview(b"view"), array.array("d", [1.5, 2.5]), mmap.mmap(-1, 32)]
)
def test_buffers_are_shared(source: Any) -> None:
    with extmem.share(source) as memory:
        assert memory.tobytes() == bytes(memoryview(source).cast("B"))


def test_a_tree_is_one_payload(peer: Peer) -> None:
    with extmem.share(WEIGHTS, "policy", metadata={"step": 7, "by": "me"}) as memory:
        assert memory.descriptor.array is None
        peer("import extmem; memory = extmem.open('policy')")
        assert peer("list(memory)") == ["encoder.weight", "encoder.bias", "heads.0", "heads.1"]
        assert peer("dict(memory.metadata)") == {"step": 7, "by": "me"}
        assert peer("memory['encoder.weight'].numpy()[2].tolist()") == [8.0, 9.0, 10.0, 11.0]
        found = peer("{k: (v.shape, v.dtype, v.nbytes) for k, v in memory.items()}")
        assert found["heads.0"] == ((2, 0), "float64", 0)
        assert found["heads.1"] == ((), "float64", 8)
        assert peer("float(memory.tree('numpy')['heads'][1])") == 2.5


def test_arrays_of_the_same_bytes_are_stored_once() -> None:
    weight = numpy.ones((64, 64), "float32")
    with extmem.share({"in": weight, "out": weight, "turned": weight.T, "other": weight.copy()}) as memory:
        assert memory.size == 2 * weight.nbytes
        views = memory.numpy()
        views["in"][0, 5] = 9
        assert views["out"][0, 5] == views["turned"][5, 0] == 9
        assert views["other"][0, 5] == 1
        del views


def test_copy_false_refuses_and_says_what_helps() -> None:
    with pytest.raises(UnsupportedError, match=r"no handle.*open_device\(\)\.allocate") as caught:
        extmem.share(numpy.ones(3), "none", copy=False)
    assert caught.value.requires_one_of
    with pytest.raises(UnsupportedError, match="a tree becomes one payload"):
        extmem.share({"x": numpy.ones(3)}, "none", copy=False)
    with pytest.raises(NameNotFoundError):
        extmem.open("none")


@pytest.mark.linux_only("a section of Windows has one name")
def test_memory_of_extmem_is_shared_in_place() -> None:
    with extmem.open_device(kind="host") as device, device.allocate((4, 4), "int32") as memory:
        view = memory.numpy()
        with extmem.share(view[1:3], "rows", copy=False) as rows, extmem.open("rows") as opened:
            assert rows.copied is False
            view[2, 3] = 77
            assert opened.numpy().tolist() == [[0, 0, 0, 0], [0, 0, 0, 77]]
        with extmem.share(memory, "all", copy=False), extmem.open("all") as opened:
            assert opened.numpy()[2, 3] == 77
        with extmem.share(view, "copy", copy=True) as copied:
            assert copied.copied == "copy=True was passed"
            view[2, 3] = 1
            assert copied.numpy()[2, 3] == 77
        del view


def test_a_name_appears_after_the_last_byte(monkeypatch: pytest.MonkeyPatch) -> None:
    reached, go = threading.Event(), threading.Event()
    copy = array_sources._copy_numpy

    def slow(octets: Any, source: Any) -> None:
        copy(octets, source)
        reached.set()
        assert go.wait(30)

    monkeypatch.setattr(array_sources, "_copy_numpy", slow)
    kept: list[extmem.DeviceMemory] = []
    thread = threading.Thread(target=lambda: kept.append(extmem.share(numpy.ones(5), "late")))
    thread.start()
    assert reached.wait(30)
    with pytest.raises(NameNotFoundError):
        extmem.open("late")
    go.set()
    with extmem.open("late", timeout=30) as opened:
        assert opened.numpy().tolist() == [1.0] * 5
    thread.join(30)
    kept[0].close()


def test_after_an_error_nothing_is_shared(monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(octets: Any, source: Any) -> None:
        raise OSError("planted")

    with monkeypatch.context() as patched:
        patched.setattr(array_sources, "_copy_numpy", fails)
        with pytest.raises(OSError, match="planted"):
            extmem.share(WEIGHTS, "broken")
    with pytest.raises(NameNotFoundError):
        extmem.open("broken")
    with extmem.share(WEIGHTS, "broken"), extmem.open("broken") as opened:
        assert len(opened) == 4


def test_a_name_that_is_taken_is_refused() -> None:
    with extmem.share(b"first", "taken") as first:
        with pytest.raises(NameTakenError):
            extmem.share(b"second", "taken")
        assert first.tobytes() == b"first"


class _Model:
    def state_dict(self) -> dict[str, Any]:
        return {"w": numpy.ones(2)}


def cyclic() -> Any:
    root: dict[str, Any] = {}
    root["self"] = [root]
    return root


@pytest.mark.parametrize(
    ("source", "kind", "reason"),
    [
        (numpy.array([object()]), TypeError, "Python objects"),
        ({"a": {"b": numpy.array([None])}}, TypeError, r"\['a'\]\['b'\] are Python objects"),
        ({"a": [numpy.ones(2), "text"]}, TypeError, r"at \['a'\]\[1\] is 'text', a str"),
        (3, TypeError, "is 3, an int, which is not an array"),
        (None, TypeError, "which is not an array"),
        (object(), TypeError, "neither an array nor a buffer; share arrays"),
        (_Model(), TypeError, r"neither an array nor a buffer; share its state_dict\(\)"),
        ([1, 2], TypeError, r"at \[0\] is 1, an int.*numpy\.asarray\(list\)"),
        ({5: numpy.ones(2)}, TypeError, "the key 5 at the root"),
        ({"a.b": numpy.ones(2), "a": {"b": numpy.ones(2)}}, ValueError, r"'a\.b' is the name of two arrays"),
        (cyclic(), ValueError, "contains itself"),
        (numpy.ma.masked_array([1, 2], [True, False]), UnsupportedError, "masked"),
    ],
)
def test_what_is_not_an_array_is_refused(source: Any, kind: type[Exception], reason: str) -> None:
    with pytest.raises(kind, match=reason):
        extmem.share(source, "refused")
    with pytest.raises(NameNotFoundError):
        extmem.open("refused")


def test_other_arguments_are_checked() -> None:
    for wrong, kind in (
        ({"copy": 1}, TypeError),
        ({"align": 3}, ValueError),
        ({"align": "4"}, TypeError),
        ({"metadata": {"a": [1]}}, TypeError),
        ({"metadata": {1: "a"}}, TypeError),
        ({"metadata": ["a"]}, TypeError),
        ({"metadata": {"a": float("nan")}}, ValueError),
        ({"metadata": {"a": float("-inf")}}, ValueError),
        ({"metadata": {"a": "\ud800"}}, ValueError),
        ({"metadata": "a"}, TypeError),
        ({"metadata": {"a": float("nan")}}, ValueError),
        ({"metadata": {"a": float("-inf")}}, ValueError),
        ({"metadata": {"a": 1 << 64}}, ValueError),
        ({"name": 4}, TypeError),
        ({"name": "a@b"}, extmem.errors.NameInvalidError),
        ({"name": "a", "access": 0}, ValueError),
    ):
        with pytest.raises(kind):
            extmem.share({"x": numpy.ones(2)}, **wrong)
    with pytest.raises(TypeError, match="metadata belongs to a tree"):
        extmem.share(numpy.ones(2), metadata={"a": "b"})


def test_metadata_of_subclasses_are_plain_values() -> None:
    class Text(str):
        """A class of a program."""

    said = {Text("text"): Text("a"), "double": numpy.float64(1.5), "kind": http.HTTPStatus.OK, "flag": True, "no": None}
    with extmem.share({"x": numpy.ones(2)}, metadata=said) as memory:
        assert dict(memory.metadata) == {"text": "a", "double": 1.5, "kind": 200, "flag": True, "no": None}
        assert memory.metadata["flag"] is True


def test_structures_without_padding_in_any_order_of_the_axes() -> None:
    packed = numpy.zeros((4, 6), [("a", "<i4"), ("b", ">f8")])
    packed["b"] = numpy.arange(24).reshape(4, 6)
    with extmem.share({"rows": packed, "columns": numpy.asfortranarray(packed)}) as memory:
        assert (memory["rows"].numpy() == packed).all() and (memory["columns"].numpy() == packed).all()
        assert memory["columns"].strides == (12, 48)


def test_the_numbers_of_the_metadata_arrive() -> None:
    said = {"most": (1 << 64) - 1, "least": -(1 << 63), "tiny": 5e-324, "third": 1 / 3, "nothing": None, "yes": True}
    with extmem.share({"x": numpy.ones(2)}, "said", metadata=said), extmem.open("said") as opened:
        assert dict(opened.metadata) == said


def test_a_tree_of_shared_memory_says_why_it_is_copied() -> None:
    with extmem.open_device(kind="host") as device, device.allocate(4, "float32") as memory:
        array = memory.numpy()
        with extmem.share({"a": array}) as copied:
            assert isinstance(copied.copied, str)
            assert "memory of extmem too" in copied.copied
        with pytest.raises(UnsupportedError, match="use memory.numpy.* in place of the arrays"):
            extmem.share({"a": array}, copy=False)
        del array
        gc.collect()  # the error that pytest has caught keeps the array


def test_empty_trees_and_arrays() -> None:
    with extmem.share({}, "empty"), extmem.open("empty") as opened:
        assert len(opened) == 0
        assert dict(opened.numpy()) == {}
    with extmem.share(numpy.zeros((0, 3)), "none"), extmem.open("none") as opened:
        assert opened.numpy().shape == (0, 3)
    with extmem.share(numpy.array(4.5), "scalar"), extmem.open("scalar") as opened:
        assert opened.numpy().shape == ()
        assert float(opened.numpy()) == 4.5


@pytest.mark.linux_only("Windows has no fork")
def test_a_forked_child_shares_copies_of_arrays_over_memory_of_its_parent() -> None:
    code = """
import os, numpy, extmem
memory = extmem.share(numpy.arange(4.0), access=extmem.Access.READ_WRITE)
array = memory.numpy()
with extmem.share(array) as shared:
    assert shared.copied is False
pid = os.fork()
if pid == 0:
    ends = [os.pipe() for _ in range(8)]      # the numbers of the parent's fds may be those of other files
    with extmem.share(array) as shared, extmem.share({"a": array[1:]}) as tree:
        assert "has no handle" in shared.copied and shared.read().tolist() == [0, 1, 2, 3]
        assert tree["a"].read().tolist() == [1, 2, 3]
    try:
        extmem.share(array, copy=False)
    except extmem.UnsupportedError:
        os._exit(7)
    os._exit(1)
print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
"""
    done = subprocess.run(
        [sys.executable, "-c", code], env=python_environment(), capture_output=True, text=True, timeout=60
    )
    assert done.stdout.strip() == "7", done.stderr


@pytest.mark.linux_only("replace needs the broker")
def test_replace_takes_the_name() -> None:
    with extmem.share(b"old", "version") as old, extmem.share(b"new", "version", replace=True):
        with extmem.open("version") as opened:
            assert opened.tobytes() == b"new"
        assert old.tobytes() == b"old"
        assert old.superseded


def test_a_writer_can_be_allowed() -> None:
    with extmem.share(numpy.zeros(3), "open", access=extmem.Access.READ_WRITE) as memory:
        with extmem.open("open") as opened:
            opened.numpy()[1] = 5
        assert memory.numpy()[1] == 5


def test_the_access_of_the_default_is_reading(peer: Peer) -> None:
    with extmem.share(numpy.zeros(3), "closed"):
        peer("import extmem")
        assert peer("extmem.open('closed').read_only")


def test_how_without_access_is_reading() -> None:
    assert sharing_arrays.how(None, None).access == extmem.Access.READ
