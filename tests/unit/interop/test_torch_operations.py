"""What operations and functions of PyTorch do to their arguments, compared with what they are seen to do."""

from __future__ import annotations

from typing import Any

import pytest

torch: Any = pytest.importorskip("torch", reason="PyTorch is not installed")

from extmem.interop.torch_operations import REACHES, Effects, Reach, effects_of, reach_of  # noqa: E402  (after the check that PyTorch is here)

ATEN = torch.ops.aten
BASE = torch._C.TensorBase


def test_the_effects_of_an_operation_are_those_of_its_schema() -> None:
    assert effects_of(ATEN.add.Tensor) == Effects((), None, False)
    assert effects_of(ATEN.add_.Tensor).written == ((0, "self"),)
    assert effects_of(ATEN.add.out).written == ((3, "out"),)
    assert effects_of(ATEN.select.int) == Effects((), None, True)
    assert effects_of(ATEN._fused_adam_.default).written[0] == (0, "self")


def test_what_a_schema_does_not_declare_is_known() -> None:
    effects = effects_of(ATEN.native_batch_norm.default)
    assert effects.written == ((3, "running_mean"), (4, "running_var")) and effects.only_if == (5, "training")
    assert effects_of(ATEN.batch_norm_update_stats.default).only_if is None
    assert effects_of(ATEN.unsafe_split.Tensor).views
    assert effects_of(ATEN.set_.source_Tensor).written == ((0, "self"), (1, "source"))


FUNCTIONS = {
    Reach.NOTHING: [BASE.numel, BASE.size, BASE.shape.__get__, BASE.dtype.__get__, BASE.data_ptr],
    Reach.RESULTS: [BASE.add, torch.add, BASE.sum, torch.cat, BASE.__eq__, torch._C._nn.linear, torch.embedding],
    Reach.VIEWS: [BASE.__getitem__, BASE.view, BASE.T.__get__, torch.unbind, BASE.to, torch.unsafe_split],
    Reach.UNKNOWN: [
        *(BASE.add_, BASE.__setitem__, BASE.__iadd__, BASE.copy_, BASE.requires_grad.__set__, torch.clamp_),
        *(torch.batch_norm, torch.native_batch_norm, torch.dropout, torch.einsum, torch._fused_adam_),
        *(
            torch.as_tensor,
            torch.nn.functional.relu,
            torch._C._nn.rrelu_with_noise,
            torch._C._VariableFunctions._copy_from,
            BASE.set_,
        ),
        *(ATEN.add.Tensor, ATEN.add, torch.Tensor.split, len, BASE.as_subclass, BASE.untyped_storage),
    ],
}


@pytest.mark.parametrize("reach", FUNCTIONS, ids=lambda one: one.name)
def test_the_reach_of_a_function(reach: Reach) -> None:
    assert {str(one): reach_of(one) for one in FUNCTIONS[reach]} == {str(one): reach for one in FUNCTIONS[reach]}
    assert {str(one): reach_of(one) for one in FUNCTIONS[reach]} == {str(one): reach for one in FUNCTIONS[reach]}


def test_a_function_of_that_name_that_is_not_pytorchs_is_unknown() -> None:
    def add(tensor: Any) -> Any:
        return tensor.add_(1)

    assert reach_of(add) is Reach.UNKNOWN and add not in REACHES
    assert reach_of(dict.copy) is Reach.UNKNOWN


def test_no_function_that_only_reads_has_a_name_of_one_that_writes() -> None:
    """By convention functions that write end with an underscore. The check of schemas has to find the same."""
    places = (torch._C._VariableFunctions, torch._C._nn, BASE)
    names = [(place, name) for place in places for name in dir(place) if not name.startswith("__")]
    writing = [getattr(place, name) for place, name in names if name.endswith("_")]
    wrong = [one for one in writing if reach_of(one) is not Reach.UNKNOWN]
    assert len(writing) > 200 and not wrong


class Writes(torch.utils._python_dispatch.TorchDispatchMode):  # type: ignore[misc]
    """Lists the operations that write, or return views of, arguments of the outermost call."""

    def __init__(self, *watched: Any) -> None:
        super().__init__()
        self.memory = {one.untyped_storage().data_ptr() for one in watched}
        self.found: list[str] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        for position, name in effects_of(func).written:
            value = args[position] if position < len(args) else (kwargs or {}).get(name)
            for one in value if isinstance(value, (list, tuple)) else [value]:
                if isinstance(one, torch.Tensor) and one.untyped_storage().data_ptr() in self.memory:
                    self.found.append(str(func))
        return func(*args, **(kwargs or {}))


def _square() -> Any:
    return torch.arange(16.0).view(4, 4)


_F = torch.nn.functional
COMPOSED = {
    **{name: getattr(torch, name) for name in ("absolute", "argsort", "clone", "square", "std", "var", "max", "min")},
    **{name: (lambda t, f=name: getattr(torch, f)(t, t)) for name in ("divide", "matmul", "multiply", "subtract")},
    **{name: (lambda t, f=name: getattr(torch, f)(t, t)) for name in ("max", "min", "true_divide")},
    "clip": lambda t: torch.clip(t, 0, 1),
    "concat": lambda t: torch.concat([t]),
    "where": lambda t: torch.where(t > 1, t, t),
    "conv1d": lambda t: torch.conv1d(t[None], t[None]),
    "conv2d": lambda t: torch.conv2d(t[None, None], t[None, None]),
    "conv3d": lambda t: torch.conv3d(t[None, None, None], t[None, None, None]),
    "linear": lambda t: torch._C._nn.linear(t, t, t[0]),
    "group_norm": lambda t: torch.group_norm(t, 2, t[0], t[0]),
    "layer_norm": lambda t: torch.layer_norm(t, (4,), t[0], t[0]),
    "rms_norm": lambda t: torch.rms_norm(t, (4,), t[0]),
    "softmax": lambda t: torch.softmax(t, 0),
    "log_softmax": lambda t: torch.log_softmax(t, 0),
    "scaled_dot_product_attention": lambda t: _F.scaled_dot_product_attention(t[None], t[None], t[None]),
    "F.layer_norm": lambda t: _F.layer_norm(t, (4,), t[0], t[0]),
    "F.group_norm": lambda t: _F.group_norm(t, 2, t[0], t[0]),
    "pow": lambda t: t**2,
    "rsub": lambda t: 1 - t,
}


@pytest.mark.parametrize("name", COMPOSED)
def test_what_is_said_to_have_results_of_its_own_writes_and_returns_nothing_else(name: str) -> None:
    tensor = _square()
    with Writes(tensor) as watch:
        result = COMPOSED[name](tensor)
    assert not watch.found
    for one in result if isinstance(result, tuple) else [result]:
        assert one.untyped_storage().data_ptr() != tensor.untyped_storage().data_ptr()


def test_the_watch_sees_a_write() -> None:
    tensor, other = _square(), _square()
    with Writes(tensor) as watch:
        tensor[0].add_(1)
        other.copy_(tensor)
    assert watch.found == ["aten.add_.Tensor"]
