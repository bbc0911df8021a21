"""Parts of memory: what indexing selects, their views, pickles and names."""

from __future__ import annotations

import pickle
from typing import Any

import pytest

import extmem
from extmem.api import slices
from extmem.errors import HandleStateError, UnsupportedError
from extmem.sharing.layout import ArrayLayout
from extmem.testing.children import Peer

numpy = pytest.importorskip("numpy", reason="NumPy is not installed")

WHOLE = numpy.arange(60, dtype="int32").reshape(3, 4, 5)


@pytest.mark.parametrize(
    "index",
    [
        1,
        -1,
        slice(1, 3),
        (slice(None), 2),
        (0, slice(None, None, 2), slice(1, 4)),
        ...,
        (..., 1),
        (1, ..., 2),
        (slice(None, None, -1), 0),
        (None, 1),
        (2, 3, 4),
        slice(2, 1),
        (slice(5, 9),),
    ],
)
def test_a_part_is_what_numpy_selects(index: Any) -> None:
    with extmem.share(WHOLE) as memory:
        part = memory[index]
        assert part.numpy().tolist() == WHOLE[index].tolist()
        assert part.shape == numpy.asarray(WHOLE[index]).shape
        assert part.read().tolist() == WHOLE[index].tolist()
        assert part.nbytes == numpy.asarray(WHOLE[index]).nbytes


@pytest.mark.parametrize("index", [slice(1, 3), -1, slice(None, None, -1), (slice(2), None), (3, slice(0, 0))])
@pytest.mark.parametrize("shape", [(4, 0), (4, 0, 3)])
def test_a_part_without_elements_is_inside(shape: tuple[int, ...], index: Any) -> None:
    empty = numpy.zeros(shape)
    with extmem.share(empty) as memory, extmem.share({"a": numpy.ones(2), "b": empty}) as named:
        for part in (memory[index], named["b"][index]):
            assert part.numpy().shape == part.read().shape == empty[index].shape
            assert part.numpy().dtype == empty.dtype


def test_memory_and_parts_are_iterated_as_arrays_are() -> None:
    with extmem.share(WHOLE) as memory, extmem.share(numpy.array(2.5)) as single:
        assert [part.read().tolist() for part in memory] == WHOLE.tolist()
        assert [part.read().tolist() for part in memory[0]] == WHOLE[0].tolist()
        assert memory and memory[:0] and len(memory[:0]) == 0
        for scalar in (single, single[...], memory[0, 0, 0]):
            with pytest.raises(TypeError, match="no axes|without axes"):
                list(scalar)
        for whole in (memory, memory[0]):
            with pytest.raises(TypeError, match=r"use 1 in .*\.numpy\(\)"):
                assert 1 in whole


def test_parts_of_parts() -> None:
    with extmem.share(WHOLE) as memory:
        part = memory[1:][..., 1:3][0, 2]
        assert part.numpy().tolist() == WHOLE[1:][..., 1:3][0, 2].tolist()
        assert part.memory is memory
        assert len(part) == 2
        assert numpy.asarray(part).tolist() == part.numpy().tolist()


@pytest.mark.parametrize(
    ("index", "kind"),
    [
        (3, IndexError),
        (-4, IndexError),
        ((0, 0, 0, 0), IndexError),
        ((..., ...), IndexError),
        ([0, 1], TypeError),
        (numpy.array([True, False, True]), TypeError),
        (1.0, TypeError),
        (True, TypeError),
        ("name", TypeError),
        (numpy.array([1]), TypeError),
        ((None,) * 62, IndexError),
    ],
)
def test_other_indices_are_refused(index: Any, kind: type[Exception]) -> None:
    with extmem.share(WHOLE) as memory, pytest.raises(kind):
        memory[index]


def test_parts_of_packed_elements_are_refused() -> None:
    layout = ArrayLayout((3, 4), "int4_packed", (16, 4))
    assert slices.part_of(layout, ...) == layout
    with pytest.raises(ValueError, match="may begin inside a byte"):
        slices.part_of(layout, 1)


def test_memory_without_an_array_has_parts_of_bytes() -> None:
    with extmem.share({"a": WHOLE}) as memory, extmem.open_device(kind="host") as device:
        assert memory["a"][0, 0].numpy().tolist() == [0, 1, 2, 3, 4]
        with device.allocate(16) as plain:
            assert plain[4:6].shape == (2,)


def test_writing_through_a_part() -> None:
    with extmem.share(WHOLE) as memory:
        memory[1, 2].numpy()[:] = -1
        assert memory.read()[1, 2].tolist() == [-1] * 5


def test_a_pickled_part_has_the_same_bytes(peer: Peer) -> None:
    with extmem.share({"w": WHOLE}) as memory:
        data = pickle.dumps(memory["w"][:, 1])
        peer("import pickle, extmem")
        peer(f"part = pickle.loads({data!r})")
        assert peer("part.numpy().tolist()") == WHOLE[:, 1].tolist()
        assert peer("part.dtype, part.shape, part.memory.name") == ("int32", (3, 5), None)
        peer("part.close()")


def test_a_part_whose_ticket_was_used_is_closed() -> None:
    with extmem.share(WHOLE) as memory:
        data = pickle.dumps(memory[0])
        pickle.loads(data).close()
        late = pickle.loads(data)
        with pytest.raises(Exception, match="ticket"):
            late.numpy()


def test_a_pickle_with_a_lying_layout_gives_a_closed_part() -> None:
    with extmem.share(WHOLE) as memory:
        part = slices.MemorySlice(memory, ArrayLayout((1000,), "int32", (4,)))
        lying = pickle.loads(pickle.dumps(part))
        with pytest.raises(extmem.DescriptorError, match="another payload"):
            lying.numpy()


def test_dlpack_of_a_part_has_the_rights_and_the_type_of_the_memory() -> None:
    with extmem.share({"w": WHOLE}, access=extmem.Access.READ_WRITE) as memory:
        array = numpy.from_dlpack(memory["w"][1, :, ::2])
        assert array.tolist() == WHOLE[1, :, ::2].tolist()
        # Some versions of NumPy return read-only arrays alone.
        assert array.flags.writeable == numpy.from_dlpack(numpy.zeros(1)).flags.writeable
        del array
    with extmem.share(WHOLE, "read") as memory, extmem.open("read") as opened:
        assert memory[0].__dlpack_device__() == opened[0].__dlpack_device__() == (1, 0)
        assert not numpy.from_dlpack(opened[0]).flags.writeable
        with pytest.raises(BufferError):
            opened[0].__dlpack__()
        with pytest.raises(BufferError, match="not on DLPack device"):
            memory[0].__dlpack__(dl_device=(2, 0))
    with extmem.open_device(kind="host") as device, device.allocate((2, 3), "bfloat16") as memory:
        assert memory[0].__dlpack__(max_version=(1, 3)) is not None


@pytest.mark.linux_only("a section of Windows has one name")
def test_a_part_with_a_name_of_its_own(peer: Peer) -> None:
    with extmem.share({"w": WHOLE}) as memory, memory["w"][:, 1:3].share("columns") as named:
        assert (named.name, named.copied) == ("columns", False)
        peer("import extmem; memory = extmem.open('columns')")
        assert peer("memory.numpy().tolist()") == WHOLE[:, 1:3].tolist()
        assert peer("memory.descriptor.array.shape, memory.read_only") == ((3, 2, 5), True)
        memory["w"].numpy()[0, 1, 0] = 99
        assert peer("int(memory.numpy()[0, 0, 0])") == 99
        with pytest.raises(extmem.NameTakenError):
            memory["w"].share("columns")
        peer("memory.close()")
    with pytest.raises(extmem.NameNotFoundError):
        extmem.open("columns")


@pytest.mark.linux_only("a section of Windows has one name")
def test_two_parts_have_names_of_their_own() -> None:
    with extmem.share(WHOLE) as memory, memory[0].share("first"), memory[1].share("second"):
        with extmem.open("first") as first, extmem.open("second") as second:
            assert first.numpy()[0, 0] == 0
            assert second.numpy()[0, 0] == 20
            assert second.descriptor.payload_offset == 80


@pytest.mark.linux_only("a section of Windows has one name")
def test_a_named_part_of_a_named_part() -> None:
    with extmem.share(WHOLE) as memory, memory[1:].share("tail") as tail, tail[1, 0].share("row") as row:
        assert row.numpy().tolist() == WHOLE[2, 0].tolist()
        assert extmem.share(row, copy=True).numpy().tolist() == WHOLE[2, 0].tolist()


def test_strides_that_a_descriptor_does_not_describe_are_refused() -> None:
    with extmem.share(WHOLE) as memory:
        with pytest.raises(UnsupportedError, match="which a descriptor does not describe"):
            memory[::-1].share("reversed")
        with extmem.share(memory[::-1].numpy(), copy=True) as copied:
            assert copied.numpy().tolist() == WHOLE[::-1].tolist()


def test_a_part_does_not_keep_memory_open() -> None:
    memory = extmem.share(WHOLE)
    part = memory[0]
    memory.close()
    with pytest.raises(HandleStateError):
        part.numpy()
