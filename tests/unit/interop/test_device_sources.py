"""Arrays of a GPU that are shared: copied on the GPU, by the scripted driver."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

import extmem
from extmem.core import shared_devices
from extmem.errors import UnsupportedError
from extmem.testing import fake_cuda
from tests import cuda_bed

numpy = pytest.importorskip("numpy", reason="NumPy is not installed")


class Foreign:
    """An array of another allocator, in memory that a test made."""

    def __init__(self, pointer: int, shape: tuple[int, ...], strides: tuple[int, ...] | None = None) -> None:
        self.__cuda_array_interface__ = {
            "shape": shape,
            "typestr": "<f4",
            "data": (pointer, False),
            "strides": strides,
            "version": 3,
            "stream": 1,
        }


@pytest.fixture
def cuda() -> Iterator[fake_cuda.FakeCuda]:
    with cuda_bed.both() as (cuda, _), shared_devices.fresh_devices():
        yield cuda


@pytest.fixture
def source(cuda: fake_cuda.FakeCuda) -> Iterator[Any]:
    with extmem.open_device(kind="cuda") as device, device.allocate((4, 3), "float32") as memory:
        memory.write(numpy.arange(12, dtype="float32").reshape(4, 3))
        yield memory.device_array().pointer


def test_an_array_is_copied_on_the_gpu(source: int) -> None:
    with extmem.share(Foreign(source, (4, 3)), "gpu", copy=True) as memory:
        assert memory.device.kind == "cuda"
        assert memory.copied == "copy=True was passed"
        assert memory.read().tolist() == numpy.arange(12.0).reshape(4, 3).tolist()


def test_a_tree_on_the_gpu_is_one_payload(source: int) -> None:
    tree = {"all": Foreign(source, (4, 3)), "again": Foreign(source, (12,)), "last": Foreign(source + 36, (3,))}
    with extmem.share(tree, "tree") as memory, extmem.open("tree") as opened:
        assert opened["all"].read().tolist() == numpy.arange(12.0).reshape(4, 3).tolist()
        assert opened["last"].read().tolist() == [9.0, 10.0, 11.0]
        assert memory["again"].offset == memory["all"].offset
        assert opened["all"][1:3, 1].read().tolist() == [4.0, 7.0]


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", ">float32"])
@pytest.mark.parametrize("kind", ["cuda", "vulkan"])
def test_memory_and_parts_of_it_on_the_gpu(cuda: fake_cuda.FakeCuda, kind: str, dtype: str) -> None:
    if dtype == "bfloat16":
        pytest.importorskip("ml_dtypes", reason="ml_dtypes is not installed")
    with extmem.open_device(kind=kind) as device, device.allocate((4, 3), dtype) as memory:
        memory.write(bytes(range(memory.nbytes)))
        tree = {"all": memory, "rows": memory[1:3], "none": memory[:0], "again": memory[...]}
        with extmem.share(tree) as shared, extmem.share(memory[1:3], copy=True) as alone:
            assert shared.device.kind == alone.device.kind == "cuda" and alone.dtype == dtype
            for name, part in (("all", memory[:]), ("rows", memory[1:3]), ("none", memory[:0])):
                assert shared[name].read().tobytes() == part.read().tobytes() and shared[name].dtype == dtype
            assert alone.read().tobytes() == memory[1:3].read().tobytes()
            assert shared["again"].offset == shared["all"].offset


def test_a_tree_is_copied_with_one_wait_and_says_so(cuda: fake_cuda.FakeCuda, source: int) -> None:
    def other_calls(arrays: int) -> int:
        tree = [Foreign(source + 4 * n, (1,)) for n in range(arrays)]
        before = len(cuda.calls)
        with extmem.share(tree, copy=True) as memory:
            made = cuda.calls[before:]
            assert memory["1"].read().tolist() == [1]
        assert made.count("cuMemcpyDtoDAsync") == arrays
        return len(made) - arrays

    other_calls(2)  # makes the device ready
    assert other_calls(2) == other_calls(12)
    with extmem.share({"a": Foreign(source, (3,)), "b": Foreign(source + 12, (3,))}) as memory:
        assert memory.copied == (
            "the Foreign at ['a'] and 1 more: the arrays of a tree lie side by side in one payload, and on cuda:0 they "
            "do not"
        )
    with pytest.raises(UnsupportedError, match="share each array under a name of its own") as caught:
        extmem.share({"a": Foreign(source, (3,)), "b": Foreign(source + 12, (3,))}, copy=False)
    assert {"extmem.torch.pool()", "extmem.torch.make_shareable()"} < set(caught.value.requires_one_of)


def test_a_tree_with_gaps_in_column_major_order_and_tied(source: int) -> None:
    turned = Foreign(source, (3, 4), (4, 12))
    with extmem.share({"turned": turned, "tied": Foreign(source, (4, 3)), "part": [Foreign(source, (2,))]}) as memory:
        expected = numpy.arange(12.0).reshape(4, 3)
        assert memory["turned"].read().tolist() == expected.T.tolist()
        assert memory["tied"].read().tolist() == expected.tolist()
        assert memory["turned"].offset == memory["tied"].offset != memory["part.0"].offset
        assert memory["part.0"].read().tolist() == [0, 1]


def test_a_tree_that_fails_at_a_copy_leaves_nothing(cuda: fake_cuda.FakeCuda, source: int) -> None:
    tree = [Foreign(source, (3,)), Foreign(source + 12, (3,))]
    extmem.share(tree).close()
    before = cuda.alive()
    cuda.fail(2, command="cuMemcpyDtoDAsync")
    with pytest.raises(extmem.OutOfMemoryError):
        extmem.share(tree, "half")
    assert cuda.alive() == before
    with pytest.raises(extmem.NameNotFoundError):
        extmem.open("half")
    with extmem.share(tree, "half") as memory:
        assert memory["1"].read().tolist() == [3, 4, 5]


def test_arrays_on_two_devices_are_refused_with_the_list(source: int) -> None:
    with pytest.raises(UnsupportedError, match=r"2 devices \(cuda:0: the Foreign at \['g'\]; host: .*\['h'\]\)"):
        extmem.share({"g": Foreign(source, (4, 3)), "h": numpy.ones(2)}, "mixed")
    with pytest.raises(extmem.NameNotFoundError):
        extmem.open("mixed")


@pytest.mark.linux_only("memory of other allocators is lent on Linux")
def test_memory_that_can_be_exported_is_shared_where_it_is(source: int) -> None:
    with extmem.share(Foreign(source, (4, 3)), "gpu", copy=False) as memory:
        assert memory.copied is False
        assert memory.read().tolist() == numpy.arange(12.0).reshape(4, 3).tolist()


@pytest.mark.linux_only("memory of other allocators is lent on Linux")
def test_an_array_with_gaps_is_shared_where_it_is(source: int) -> None:
    with extmem.share(Foreign(source + 4, (3, 2), (12, 8)), "gaps", copy=False) as memory:
        assert memory.copied is False
        assert (memory.shape, memory.strides) == ((3, 2), (12, 8))
        with extmem.open("gaps") as opened:
            assert opened.read().tolist() == [[1.0, 3.0], [4.0, 6.0], [7.0, 9.0]]


def test_gaps_need_a_framework(source: int) -> None:
    with pytest.raises(UnsupportedError, match="has gaps between its elements"):
        extmem.share(Foreign(source, (2, 3), (24, 4)), "gaps", copy=True)
    with pytest.raises(UnsupportedError, match=r"does not describe the strides \(0, 4\) of the shape \(2, 3\)"):
        extmem.share(Foreign(source, (2, 3), (0, 4)), "gaps", copy=False)
    with extmem.share(Foreign(source, (3, 4), (4, 12)), "turned") as memory:
        assert memory.read().tolist() == numpy.arange(12.0).reshape(4, 3).T.tolist()


def test_an_empty_array(source: int) -> None:
    with extmem.share({"none": Foreign(0, (0, 3))}) as memory:
        assert memory["none"].read().shape == (0, 3)


def test_safetensors_on_the_gpu(source: int, tmp_path: Any) -> None:
    with extmem.share({"w": numpy.arange(6, dtype="float32"), "b": numpy.ones(2, "int8")}) as memory:
        extmem.save_safetensors(memory, tmp_path / "m")
    with extmem.load_safetensors(tmp_path / "m", "m", device="cuda") as memory:
        assert memory.device.kind == "cuda"
        assert memory["w"].read().tolist() == [0, 1, 2, 3, 4, 5]
        extmem.save_safetensors(memory, tmp_path / "again")
    assert (tmp_path / "m").read_bytes() == (tmp_path / "again").read_bytes()
    with pytest.raises(UnsupportedError, match="cuda:7"):
        extmem.load_safetensors(tmp_path / "m", device="cuda:7")
