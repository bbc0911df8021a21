"""`ReadOnlyTensor` by itself, over memory that a write would not end the process for. (Over memory: test_torch.py.)"""

from __future__ import annotations

from typing import Any

import pytest

from extmem.testing.children import Child

torch: Any = pytest.importorskip("torch", reason="PyTorch is not installed")

from extmem.interop.read_only_tensor import ReadOnlyTensor  # noqa: E402  (after the check that PyTorch is here)


def guarded(tensor: Any) -> Any:
    return torch.Tensor._make_subclass(ReadOnlyTensor, tensor)


@pytest.fixture
def tensor() -> Any:
    plain = torch.arange(16.0).view(4, 4)
    yield guarded(plain)
    assert plain.view(-1).tolist() == list(range(16))


X = torch.ones(3, 4)

UNDECLARED = {
    "batch_norm": lambda t: torch.nn.functional.batch_norm(X, t[0], t[1], training=True),
    "native_batch_norm": lambda t: torch.native_batch_norm(X, None, None, t[0], t[1], True, 0.1, 1e-5),
    "batch_norm_update_stats": lambda t: torch.batch_norm_update_stats(X, t[0], t[1], 0.1),
    "instance_norm": lambda t: torch.nn.functional.instance_norm(torch.ones(2, 4, 5), t[0], t[1]),
    "embedding with a norm": lambda t: torch.nn.functional.embedding(torch.tensor([1]), t, max_norm=0.1),
    "unsafe_split": lambda t: torch.unsafe_split(t, 1)[0].zero_(),
    "unsafe_chunk": lambda t: t.unsafe_chunk(2)[0].zero_(),
    "values of a sparse tensor": lambda t: _sparse(t[0])._values().zero_(),
    "as_tensor": lambda t: torch.as_tensor(t).zero_(),
    "asarray": lambda t: torch.asarray(t).zero_(),
    "dropout that does nothing": lambda t: torch.nn.functional.dropout(t, training=False).zero_(),
    "einsum": lambda t: torch.einsum("ij->ji", t).zero_(),
    "broadcast": lambda t: torch.broadcast_tensors(t, torch.ones(2, 4, 4))[0].zero_(),
    "another tensor over it": lambda t: torch.ones(4).set_(t).zero_(),
    "a parameter": lambda t: torch.nn.Parameter(t, requires_grad=False).zero_(),
    "an optimizer": lambda t: _step(torch.nn.Parameter(t)),
    "attributes": lambda t: t.T.mT.zero_(),
    "the data of the base class": lambda t: torch.Tensor.data.__get__(t).zero_(),
    "several views": lambda t: t.tensor_split(2)[1].zero_(),
    "the same tensor": lambda t: t.contiguous().to("cpu").float().zero_(),
    "a transform": lambda t: torch.func.vmap(lambda row: row.zero_())(t),
    "no gradients": lambda t: torch.no_grad()(lambda: t[0].zero_())(),
    "inference": lambda t: torch.inference_mode()(lambda: t[0].zero_())(),
    "gradients": lambda t: torch.nn.Parameter(t)[0].detach().zero_(),
    "within a mode": lambda t: _in_a_mode(lambda: t[0].zero_()),
    "compiled": lambda t: torch.compile(lambda a: a.add_(1), backend="eager")(t),
    "a view, compiled": lambda t: torch.compile(lambda a: a[0].add_(1), backend="eager")(t),
    "views, compiled": lambda t: torch.compile(lambda a: a.T.unbind()[0].mul_(2), backend="eager")(t),
    "a view that is returned, compiled": lambda t: torch.compile(lambda a: a[0], backend="eager")(t).zero_(),
    "compiled further": lambda t: torch.compile(lambda a: a.add_(1), backend="aot_eager")(t),
    "a view, compiled further": lambda t: torch.compile(lambda a: a[0].add_(1), backend="aot_eager")(t),
}


def _sparse(values: Any) -> Any:
    return torch.sparse_coo_tensor(torch.tensor([[0, 1, 2, 3]]), values, check_invariants=False)


def _step(parameter: Any) -> None:
    parameter.grad = torch.ones(4, 4)
    torch.optim.Adam([parameter]).step()


class _Mode(torch.utils._python_dispatch.TorchDispatchMode):  # type: ignore[misc]
    seen = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.seen += 1
        return func(*args, **(kwargs or {}))


def _in_a_mode(what: Any) -> Any:
    with _Mode() as mode:
        result = what()
    assert mode.seen
    return result


@pytest.mark.parametrize("how", UNDECLARED)
def test_a_write_that_is_hard_to_see_is_refused(how: str, tensor: Any) -> None:
    with pytest.raises(PermissionError, match="read-only in this process"):
        UNDECLARED[how](tensor)


def test_batch_norm_reads_its_statistics_in_evaluation(tensor: Any) -> None:
    made = torch.nn.functional.batch_norm(X, tensor[0], tensor[1], training=False)
    assert type(made) is torch.Tensor and made.shape == (3, 4)


def test_a_compiled_function_reads_it(tensor: Any) -> None:
    assert torch.compile(lambda a: a[0].sum() + a.shape[0], backend="eager")(tensor) == 10


def test_results_are_plain_and_views_are_not(tensor: Any) -> None:
    for made in (tensor + 1, X + tensor[0], tensor @ tensor, tensor[tensor > 3], tensor[[0, 1]], tensor.double()):
        assert type(made) is torch.Tensor
    made = torch.cat([tensor, tensor]), torch.nn.functional.layer_norm(X, (4,), tensor[0]), tensor**2, 1 - tensor
    assert {type(one) for one in made} == {torch.Tensor}
    for view in (tensor[0], tensor[..., None], tensor.T, tensor.detach(), *tensor.unbind(), *tensor, tensor.float()):
        assert type(view) is ReadOnlyTensor and view._plain().data_ptr() == view.data_ptr()


def test_gradients_pass_through_it(tensor: Any) -> None:
    weight = torch.ones(4, 4, requires_grad=True)
    (weight * tensor[:2].repeat(2, 1)).sum().backward()
    assert weight.grad.tolist() == tensor[:2].repeat(2, 1).tolist()
    parameter = torch.nn.Parameter(tensor)
    (parameter[1:] * 2).sum().backward()
    assert parameter.grad.sum() == 24 and type(parameter) is ReadOnlyTensor


def test_modes_and_transforms_see_its_operations(tensor: Any) -> None:
    assert _in_a_mode(lambda: tensor.sum()) == 120
    assert torch.func.vmap(lambda row: row.sum())(tensor).tolist() == [6, 22, 38, 54]
    assert torch.func.grad(lambda x: (x * tensor[0]).sum())(torch.ones(4)).tolist() == [0, 1, 2, 3]


class _Other(torch.Tensor):  # type: ignore[misc]
    pass


class _Records:
    """A class that intercepts functions, as those of tracers do."""

    @classmethod
    def __torch_function__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return func.__name__, types


def test_another_class_that_intercepts_functions_gets_them(tensor: Any) -> None:
    other = torch.ones(4, 4).as_subclass(_Other)
    for made in (tensor + other, other + tensor):
        assert type(made) is _Other and made.sum() == 136
    with pytest.raises(PermissionError):
        tensor.add_(other)
    assert torch.add(tensor, _Records()) == ("add", (_Records,))


def test_a_function_with_an_output_writes_to_that_alone(tensor: Any) -> None:
    out = torch.empty(4, 4)
    torch.add(tensor, 1, out=out)
    assert out.sum() == 136
    with pytest.raises(PermissionError):
        torch.add(out, 1, out=tensor)


LIGHT = """
import sys, torch
from extmem.interop.read_only_tensor import ReadOnlyTensor
tensor = torch.Tensor._make_subclass(ReadOnlyTensor, torch.ones(4, 4))
before = set(sys.modules)
weight = torch.ones(4, 4, requires_grad=True)
tensor.sum(), tensor[0], tensor @ tensor, torch.nn.functional.relu(tensor), torch.einsum("ij->ji", tensor)
(weight * tensor).sum().backward()
try:
    tensor.add_(1)
except PermissionError:
    print("refused")
print("loaded", sorted(name for name in set(sys.modules) - before if "distributed" in name or "sympy" in name))
"""


def test_its_first_use_imports_no_large_part_of_pytorch() -> None:
    with Child.python(LIGHT) as child:
        child.wait(deadline=100)
        assert "refused" in child.output and "loaded []" in child.output
