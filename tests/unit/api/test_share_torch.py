"""PyTorch's tensors, shared: state dictionaries, aliases, order, and what is refused."""

from __future__ import annotations

import copy
import gc
from pathlib import Path
from typing import Any

import pytest

import extmem
from extmem.errors import UnsupportedError

torch: Any = pytest.importorskip("torch", reason="PyTorch is not installed")


def model() -> Any:
    return torch.nn.Sequential(torch.nn.Linear(4, 5), torch.nn.BatchNorm1d(5), torch.nn.Linear(5, 2))


def test_a_state_dictionary_arrives() -> None:
    trained, fresh = model(), model()
    with extmem.share(trained.state_dict(), "policy"), extmem.open("policy") as opened:
        views = opened.torch(private="*running*")
        fresh.load_state_dict(views)
        for name, tensor in trained.state_dict().items():
            assert torch.equal(fresh.state_dict()[name], tensor)
        views["1.running_mean"].add_(1)
        with pytest.raises(PermissionError):
            views["0.weight"].add_(1)
        del views


def test_private_weights_stay_tied() -> None:
    tied = torch.arange(6.0)
    with extmem.share({"a": tied, "b": tied.view(2, 3), "c": tied + 1}, "tied"), extmem.open("tied") as opened:
        views = opened.torch(private=True)
        views["a"][1] = 9
        assert views["b"][0, 1] == 9 and views["c"].tolist() == [1, 2, 3, 4, 5, 6] and opened["b"].read()[0, 1] == 1
        del views


def test_a_module_runs_on_the_shared_weights() -> None:
    trained = model().eval()
    data = torch.randn(3, 4)
    with extmem.share(trained.state_dict()) as memory:
        borrowed = model().eval()
        borrowed.load_state_dict(dict(memory.torch()), assign=True)
        assert torch.equal(borrowed(data), trained(data))
        memory["0.bias"].torch().zero_()
        assert not torch.equal(borrowed(data), trained(data))
        del borrowed


@pytest.mark.parametrize(
    "dtype", ["bfloat16", "float16", "complex64", "bool", "int64", "float8_e4m3fn", "float8_e5m2", "uint16"]
)
def test_element_types_arrive(dtype: str) -> None:
    source = torch.arange(12).reshape(3, 4).to(torch.float32).to(getattr(torch, dtype))
    with extmem.share({"x": source, "one": source[0, 1], "none": source[:0]}) as memory:
        views = memory.torch()
        assert memory["x"].dtype == dtype
        for name, tensor in {"x": source, "one": source[0, 1], "none": source[:0]}.items():
            assert views[name].dtype == tensor.dtype
            assert views[name].tolist() == tensor.tolist()
        del views


def test_order_and_gaps() -> None:
    source = {"T": torch.randn(3, 4).t(), "gaps": torch.randn(6, 6)[:, ::2], "expanded": torch.ones(1, 4).expand(3, 4)}
    with extmem.share(source) as memory:
        views = memory.torch()
        assert all(torch.equal(views[name], source[name]) for name in source)
        assert views["T"].stride() == source["T"].stride()
        assert views["gaps"].is_contiguous()
        del views


def test_tied_weights_stay_tied() -> None:
    weight = torch.nn.Parameter(torch.randn(8, 8))
    with extmem.share({"in": weight, "out": weight}) as memory:
        views = memory.torch()
        views["in"][0, 0] = 5
        assert float(views["out"][0, 0]) == 5
        assert memory.size == 8 * 8 * 4
        del views


def test_a_tensor_over_shared_memory_is_shared_in_place() -> None:
    with extmem.share(torch.zeros(4, 4)) as memory:
        tensor = memory.torch()
        with extmem.share(tensor[1], copy=False) as row:
            tensor[1, 2] = 3
            assert row.torch().tolist() == [0, 0, 3, 0]
        del tensor


def quantized() -> Any:
    return torch.quantize_per_tensor(torch.ones(2), 0.1, 0, torch.qint8)


class Wrapped(torch.Tensor):  # type: ignore[misc]
    pass


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (lambda: torch.eye(3).to_sparse(), r"sparse.*to_dense\(\)"),
        (quantized, r"quantized.*dequantize\(\)"),
        (lambda: torch.nested.nested_tensor([torch.ones(2), torch.ones(3)]), r"nested.*unbind\(\)"),
        (lambda: torch.empty(3, device="meta"), "on the device meta"),
        (lambda: torch.ones(2, dtype=torch.complex64).conj(), r"resolve_conj\(\)"),
        (lambda: torch.ones(2, dtype=torch.complex64).conj().imag, r"resolve_neg\(\)"),
        (lambda: torch.ones(2).as_subclass(Wrapped), "a Wrapped"),
    ],
)
@pytest.mark.filterwarnings("ignore")
def test_tensors_without_plain_elements_are_refused(make: Any, reason: str) -> None:
    for source in (make(), {"deep": [make()]}):
        with pytest.raises(UnsupportedError, match=reason):
            extmem.share(source)


def test_requires_grad_is_recorded_and_not_shared() -> None:
    with extmem.share({"w": torch.ones(2, requires_grad=True), "b": torch.ones(2)}) as memory:
        assert [entry.flags for entry in memory.table.entries] == [1, 0]  # type: ignore[attr-defined]
        assert not memory.torch()["w"].requires_grad


def test_tensors_that_can_be_written_are_saved_as_others_are(tmp_path: Path) -> None:
    trained, path = model(), tmp_path / "weights.pt"  # its tensors have two types
    with extmem.share(trained.state_dict()) as memory:
        trained.load_state_dict(memory.torch(), assign=True)
        torch.save(trained.state_dict(), path)
        for name, tensor in torch.load(path, weights_only=True).items():
            assert torch.equal(trained.state_dict()[name], tensor)
        weight = trained[0].weight
        assert weight.untyped_storage().nbytes() == 4 * weight.numel()
        with torch.no_grad():
            weight.fill_(3)
        assert memory["0.weight"].read()[0, 0] == 3
        with pytest.raises(RuntimeError, match="not resizable"):
            weight.data.resize_(1000)
        del trained, weight, tensor
        gc.collect()  # the error that pytest has caught keeps a tensor


@pytest.mark.parametrize("access", [extmem.Access.READ, extmem.Access.READ_WRITE])
def test_the_mapping_itself_can_be_saved_and_copied(tmp_path: Path, access: int) -> None:
    path, weight = tmp_path / "weights.pt", torch.arange(6.0)
    with extmem.share({"w": weight, "n": torch.tensor(3)}, "saved", access=access), extmem.open("saved") as opened:
        views = opened.torch()
        torch.save(views, path)
        for made in (torch.load(path, weights_only=True), copy.deepcopy(views)):
            assert list(made) == ["w", "n"]
            made["w"].add_(1)
            assert made["w"].tolist() == (weight + 1).tolist()
        assert views["w"].tolist() == weight.tolist()
        del views


def test_tied_weights_that_can_be_written_have_one_storage() -> None:
    weight = torch.ones(3)
    with extmem.share({"a": weight, "b": weight, "c": weight.clone()}) as memory:
        views = memory.torch()
        starts = {name: tensor.untyped_storage().data_ptr() for name, tensor in views.items()}
        assert starts["a"] == starts["b"] != starts["c"]
        del views
