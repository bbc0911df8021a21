"""What the operations of PyTorch do to their arguments: `effects_of` an operation, `reach_of` a function.

How this works. An operation of PyTorch's dispatcher (`torch.ops.aten.add.Tensor`) has a schema, which declares the
arguments that it writes to and the results that are views. A few declare less than they do; these are named here. A
function of Python (`torch.add`, `Tensor.add`) has no schema. It is one of the operations of its name, so it can do what
any of these can do. That says nothing about a function that consists of other operations (PyTorch calls such operations
composite): those of which it is known are named here, and for all others each operation has to be looked at.

Both answers are kept for each operation and function, because they are asked for at each call.
"""

from __future__ import annotations

from enum import Enum, auto
from types import (
    BuiltinFunctionType,
    GetSetDescriptorType,
    MethodDescriptorType,
    MethodWrapperType,
    WrapperDescriptorType,
)
from typing import Any

import msgspec
import torch
from torch.nn import functional

__all__ = ["Effects", "Reach", "effects_of", "prepare_dispatch", "reach_of"]


class Effects(msgspec.Struct, frozen=True):
    """What one operation does to its arguments."""

    written: tuple[tuple[int, str], ...]
    """The positions and names of the arguments that it writes to."""
    only_if: tuple[int, str] | None
    """The argument, a bool, that decides whether it writes; None if it always does."""
    views: bool
    """Whether a result can be over the memory of an argument."""


class Reach(Enum):
    """What a function can do to the memory of its arguments."""

    UNKNOWN = auto()
    """It may write to it: each operation that it consists of has to be looked at."""
    NOTHING = auto()
    """It reads what describes the tensor, such as its shape."""
    RESULTS = auto()
    """It reads; its results have memory of their own."""
    VIEWS = auto()
    """It reads; its results may be over the memory of its first argument."""


_RUNNING = ("running_mean", "running_var")
_WRITES_UNDECLARED = {
    "aten::native_batch_norm": _RUNNING,
    "aten::cudnn_batch_norm": _RUNNING,
    "aten::miopen_batch_norm": _RUNNING,
    "aten::batch_norm_update_stats": _RUNNING,
    "aten::batch_norm_gather_stats": _RUNNING,
    "aten::batch_norm_gather_stats_with_counts": _RUNNING,
    "aten::set_": ("source",),  # and then every write to the other tensor
}
"""Arguments that are written to although the schema does not say so: where there is an argument `training`, if it is
true."""
_VIEWS_UNDECLARED = frozenset(
    {
        "aten::_sparse_coo_tensor_with_dims_and_tensors",
        "aten::_unsafe_view",
        "aten::unsafe_split",
        "aten::unsafe_split_with_sizes",
    }
)

_READING = frozenset(
    # Composite operations: their results are computed, and none of their parts writes.
    "absolute argsort clip concat conv1d conv2d conv3d divide group_norm item layer_norm linear log_softmax".split()
    + "matmul max min multiply rms_norm scaled_dot_product_attention softmax square std subtract".split()
    + "true_divide var where".split()
    # Methods of Python alone, for one element.
    + "__bool__ __complex__ __float__ __index__ __int__".split()
)
_DESCRIBING = frozenset(
    "data_ptr dim element_size is_complex is_contiguous is_floating_point ndimension nelement numel size".split()
    + "storage_offset stride".split()
)
_DESCRIBING_ATTRIBUTES = frozenset(
    "device dtype is_cpu is_cuda is_leaf is_meta is_sparse itemsize layout nbytes ndim requires_grad shape".split()
)
_VIEWING = frozenset(
    "__getitem__ bfloat16 bool chunk contiguous cpu cuda double flatten float half int long movedim narrow".split()
    + "ravel reshape swapaxes tensor_split to type_as view_as".split()
)
"""Composite operations, and methods of Python alone, whose results are over the memory of their first argument or have
memory of their own."""

_EFFECTS: dict[Any, Effects] = {}
REACHES: dict[Any, Reach] = dict.fromkeys(
    [
        *(torch.Tensor.__pow__, torch.Tensor.__rdiv__, torch.Tensor.__rpow__, torch.Tensor.__rsub__),
        *(functional.group_norm, functional.layer_norm, functional.log_softmax, functional.softmax),
    ],
    Reach.RESULTS,
)
"""What is known already; at the start, functions that are written in Python, to which the same applies."""


def effects_of(operation: Any) -> Effects:
    """Return what an operation of the dispatcher (an OpOverload) does to its arguments."""
    known = _EFFECTS.get(operation)
    if known is None:
        known = _EFFECTS[operation] = _effects(operation._schema)
    return known


def _effects(schema: Any) -> Effects:
    undeclared = _WRITES_UNDECLARED.get(schema.name, ())
    written = [
        (position, argument.name)
        for position, argument in enumerate(schema.arguments)
        if argument.name in undeclared or (argument.alias_info is not None and argument.alias_info.is_write)
    ]
    switch = [(i, one.name) for i, one in enumerate(schema.arguments) if undeclared and one.name == "training"]
    views = schema.name in _VIEWS_UNDECLARED or any(one.alias_info is not None for one in schema.returns)
    return Effects(tuple(written), switch[0] if switch else None, views)


def reach_of(function: Any) -> Reach:
    """Return what a function can do that PyTorch passes to `__torch_function__`.

    This holds for calls without `out=` and without the names of dimensions.
    """
    known = REACHES.get(function)
    if known is None:
        known = _reach(function)
        if type(function) in _COMPILED:  # these live as long as PyTorch does
            REACHES[function] = known
    return known


_COMPILED = (BuiltinFunctionType, MethodDescriptorType, WrapperDescriptorType, MethodWrapperType)


def _reach(function: Any) -> Reach:
    name = getattr(function, "__name__", "")
    if type(function) not in _COMPILED:
        return Reach.UNKNOWN
    if type(function) is MethodWrapperType:  # of an attribute
        attribute = function.__self__
        if name != "__get__" or type(attribute) is not GetSetDescriptorType:
            return Reach.UNKNOWN
        return Reach.NOTHING if attribute.__name__ in _DESCRIBING_ATTRIBUTES else Reach.VIEWS
    if not any(getattr(place, name, None) is function for place in _PLACES):
        return Reach.UNKNOWN
    if name.startswith("_") and not name.startswith("__"):  # PyTorch's own use, with fewer promises
        return Reach.UNKNOWN
    if name in _DESCRIBING:
        return Reach.NOTHING
    if name in _READING:
        return Reach.RESULTS
    return Reach.VIEWS if name in _VIEWING else _reach_by_schemas(name)


_PLACES = (torch._C.TensorBase, torch._C._VariableFunctions, torch._C._nn)


def _reach_by_schemas(name: str) -> Reach:
    """Return what the operations of a name can do, those with `out=` and names of dimensions apart."""
    packets = (getattr(torch.ops.aten, one, None) for one in (name, name.strip("_")))
    operations = next((one for one in packets if isinstance(one, torch._ops.OpOverloadPacket)), None)
    seen: set[bool] = set()
    for overload in () if operations is None else operations.overloads():
        operation = getattr(operations, overload)
        schema = operation._schema
        if not torch._C._dispatch_has_kernel(operation.name()):  # of TorchScript alone
            continue
        if any(one.is_out or "Dimname" in str(one.type) for one in schema.arguments):
            continue
        effects = effects_of(operation)
        if effects.written or torch._C._dispatch_has_kernel_for_dispatch_key(operation.name(), _COMPOSITE):
            return Reach.UNKNOWN
        seen.add(effects.views)
    if not seen:
        return Reach.UNKNOWN
    return Reach.VIEWS if True in seen else Reach.RESULTS


_COMPOSITE = "CompositeImplicitAutograd"

# Recent versions of PyTorch import `torch.distributed.tensor` (500 modules, a second) before they call the
# `__torch_dispatch__` of a class, to find out whether the class is that module's. They do not import it where a rule is
# registered for the class and the operation.

_rules: dict[Any, Any] = {}


def prepare_dispatch(kind: Any) -> None:
    """Register `kind.__torch_dispatch__` for each operation that reaches it, which takes tens of milliseconds, once.

    An operation without a rule reaches the method too, after that import: an operation of a library that is loaded
    later, or one that another thread calls meanwhile.
    """
    if kind in _rules or not hasattr(torch.library, "register_torch_dispatch"):
        return
    library = torch.library.Library("aten", "FRAGMENT")  # the rules end with it
    if _rules.setdefault(kind, library) is not library:
        return  # another thread registers them
    for name in torch._C._dispatch_get_all_op_names():
        if name.startswith("aten::") and not torch._C._dispatch_has_kernel_for_dispatch_key(name, _COMPOSITE):
            torch.library.register_torch_dispatch(name, kind, kind.__torch_dispatch__.__func__, lib=library)
