"""Memory of named arrays as a mapping."""

from __future__ import annotations

import copy
import pickle
from collections import OrderedDict

import pytest

import extmem
from extmem.core import companion_pages, tables
from extmem.errors import DescriptorError, HandleStateError, LiveViewError
from extmem.sharing import table
from extmem.sharing.kinds import PageRole

numpy = pytest.importorskip("numpy", reason="NumPy is not installed")


def weights() -> dict[str, object]:
    return {
        "encoder.weight": numpy.arange(6, dtype="float32").reshape(2, 3),
        "encoder.bias": numpy.ones(2, "float32"),
        "running_mean": numpy.zeros(4, "float64"),
    }


def test_it_is_a_mapping() -> None:
    with extmem.share(weights()) as memory:
        assert isinstance(memory, extmem.NamedArrays)
        assert list(memory) == list(memory.keys()) == list(weights())
        assert len(memory) == 3
        assert "encoder.bias" in memory
        assert "bias" not in memory
        assert memory["encoder.weight"].shape == (2, 3)
        assert memory.get("nothing") is None
        assert memory.get("running_mean").dtype == "float64"
        assert [part.nbytes for part in memory.values()] == [24, 8, 32]
        with pytest.raises(KeyError, match=r"no array 'bias'.*there is 'encoder\.bias'"):
            memory["bias"]
        with pytest.raises(TypeError, match="holds arrays by name"):
            memory[0]


def test_views_are_made_when_they_are_asked_for() -> None:
    with extmem.share(weights()) as memory:
        views = memory.numpy()
        assert views["encoder.weight"] is views["encoder.weight"]
        assert "encoder.bias" in views
        assert len(views) == 3
        assert {name: view.tolist() for name, view in views.items()}["encoder.bias"] == [1.0, 1.0]
        with pytest.raises(LiveViewError):
            memory.close()
        del views


def test_private_arrays_are_copies() -> None:
    with extmem.share(weights(), "model"), extmem.open("model") as opened:
        views = opened.numpy(private=["running_*"])
        views["running_mean"][0] = 3
        with pytest.raises(ValueError, match="read-only"):
            views["encoder.weight"][0] = 3
        assert opened["running_mean"].read()[0] == 0
        assert opened.numpy(private=True)["encoder.weight"].flags.writeable
        del views


def test_private_arrays_of_the_same_bytes_stay_tied() -> None:
    tied = numpy.arange(6.0)
    with extmem.share({"a": tied, "b": tied, "c": tied.reshape(2, 3), "d": tied + 1}) as memory:
        views = memory.numpy(private=["a", "b", "c", "d"])
        views["a"][1] = 9
        assert views["b"][1] == views["c"][0, 1] == 9 and views["d"].tolist() == [1, 2, 3, 4, 5, 6]
        assert memory["a"].read()[1] == 1
        apart = memory.numpy(private="a")
        apart["a"][1] = 9
        assert apart["b"][1] == 1
        del views, apart


def test_the_names_of_an_update_are_several() -> None:
    with extmem.share(weights()) as memory, pytest.raises(TypeError, match="names is 5, an int"):
        memory.update(5)  # type: ignore[arg-type]


def test_patterns_are_text() -> None:
    with extmem.share(weights()) as memory:
        for private in (3, ["encoder.*", 3], None, b"encoder"):
            with pytest.raises(TypeError, match="private .*pattern"):
                memory.numpy(private=private)
        with pytest.raises(TypeError, match=r"select\(\) has \['a'\], a list"):
            memory.select(["a"])
        for framework in (None, "jax", "cupy"):
            with pytest.raises(ValueError, match=r"private is True, and tree\(.*makes no copies"):
                memory.tree(framework, private=True)
        assert memory.tree("numpy", private={"encoder.*": 0}.keys())["encoder.bias"].flags.writeable


def test_views_are_copied_as_a_dictionary() -> None:
    with extmem.share(weights(), "model"), extmem.open("model") as opened:
        views = opened.numpy()
        for made in (copy.deepcopy(views), pickle.loads(pickle.dumps(views))):
            assert type(made) is OrderedDict
            assert list(made) == list(weights())
            assert made["encoder.weight"].tolist() == weights()["encoder.weight"].tolist()
        made["encoder.weight"][:] = 9
        assert views["encoder.weight"][0, 0] == 0
        with pytest.raises(KeyError, match=r"no array 'bias'.*there is 'encoder\.bias'"):
            views["bias"]
        del views


def test_a_selection_is_a_mapping_too() -> None:
    with extmem.share(weights()) as memory:
        chosen = memory.select("encoder.*")
        assert list(chosen) == ["encoder.weight", "encoder.bias"]
        assert len(memory.select("*.bias", "running*")) == 2
        assert chosen["encoder.bias"].numpy().tolist() == [1.0, 1.0]
        assert "running_mean" not in chosen
        assert list(chosen.numpy()) == list(chosen)
        with pytest.raises(KeyError):
            chosen["running_mean"]


def test_it_is_not_one_array() -> None:
    with extmem.share(weights()) as memory:
        assert memory.numpy("uint8", (4,)).shape == (4,)
        with pytest.raises(TypeError, match="holds 3 arrays by name"):
            memory.__array__()


def test_it_can_be_pickled() -> None:
    with extmem.share(weights()) as memory, pickle.loads(pickle.dumps(memory)) as again:
        assert isinstance(again, extmem.NamedArrays)
        assert list(again) == list(memory)


def test_closed_memory_has_no_arrays() -> None:
    memory = extmem.share(weights())
    part = memory["encoder.bias"]
    memory.close()
    for use in (lambda: memory["encoder.bias"], lambda: len(memory), part.numpy, lambda: memory.metadata):
        with pytest.raises(HandleStateError):
            use()


def test_the_tree_of_a_flat_dictionary() -> None:
    with extmem.share(weights()) as memory:
        assert list(memory.tree()) == list(weights())
        assert memory.tree("numpy")["encoder.bias"].tolist() == [1.0, 1.0]
        with pytest.raises(ValueError, match="framework is 'pandas'"):
            memory.tree("pandas")


def test_a_table_that_lies_is_refused_before_anything_is_mapped(monkeypatch: pytest.MonkeyPatch) -> None:
    place = table.place

    def lie(specs: object, align: int = 256) -> object:
        entries, size = place(specs, align)  # type: ignore[arg-type]
        far = table.Entry("far", "uint8", (1 << 40,), 0, 1 << 40)
        return (far, *entries[1:]), size

    with monkeypatch.context() as patched:
        patched.setattr(table, "place", lie)
        memory = extmem.share(weights(), "liar")
    with memory, extmem.open("liar") as opened:
        for use in (opened.keys, opened.numpy, lambda: opened["far"], lambda: len(opened)):
            with pytest.raises(DescriptorError, match=r"entry 'far' is at bytes 0 to 1099511627776"):
                use()
        assert not opened.record.allocation.mapped


def test_a_table_page_that_is_too_large_is_not_read(monkeypatch: pytest.MonkeyPatch) -> None:
    with extmem.share(weights()) as memory:
        pages = memory.record.pages
        assert pages is not None
        pages.table = None
        monkeypatch.setattr(companion_pages.CompanionPages, "size", lambda self, role: 1 << 40)
        with pytest.raises(DescriptorError, match="1099511627776 bytes"):
            memory.keys()


@pytest.mark.linux_only("Windows has no fds of payloads")
def test_an_fd_does_not_carry_the_table() -> None:
    with extmem.share(weights()) as memory:
        handle = memory.export_handle(extmem.vk.ExternalMemoryHandleTypeFlagBits.OPAQUE_FD)
        with extmem.open(handle) as opened:  # type: ignore[arg-type]
            assert isinstance(opened, extmem.NamedArrays)
            with pytest.raises(HandleStateError, match="came by file descriptor"):
                opened.keys()
            assert opened.size == memory.size


def test_the_table_is_read_once_for_all_objects_of_an_import() -> None:
    with extmem.share(weights(), "model"), extmem.open("model") as first, extmem.open("model") as second:
        assert first.record is second.record
        first.keys()
        assert tables.table_of(first.record) is tables.table_of(second.record)
        assert PageRole.TABLE in first.record.pages  # type: ignore[operator]
