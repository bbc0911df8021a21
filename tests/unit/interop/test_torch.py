"""PyTorch on host memory, and a build without CUDA. (On a GPU's memory: tests/gpu.)"""

from __future__ import annotations

import copy
import gc
import io
import pickle
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy
import pytest

import extmem
from extmem.api import Device, DeviceMemory
from extmem.testing import fake_cuda
from extmem.testing.children import Child

torch: Any = pytest.importorskip("torch", reason="PyTorch is not installed")


def test_a_tensor_is_over_the_memory_itself(device: Device) -> None:
    with device.allocate((3, 4), "float32") as memory:
        tensor = memory.torch()
        assert tensor.shape == (3, 4) and tensor.dtype == torch.float32 and type(tensor) is torch.Tensor
        tensor += 2
        assert (memory.numpy() == 2).all()
        part = tensor[1:, ::2]
        del tensor
        gc.collect()
        with pytest.raises(extmem.LiveViewError):
            memory.close()
        del part
        gc.collect()


def test_elements_that_are_not_at_multiples_of_their_size_are_refused(device: Device) -> None:
    with device.allocate((3, 4), "float32", strides=(18, 4)) as memory:
        assert memory.numpy().strides == (18, 4)
        with pytest.raises(extmem.UnsupportedError, match=r"strides \(18, 4\).*4 bytes of float32.*numpy\(\)"):
            memory.torch()
        with pytest.raises(extmem.UnsupportedError, match="the offset 2 "):
            memory.torch("float32", (4,), offset=2)
        assert memory.torch("float32", (4,), offset=4).shape == (4,)
        assert memory.torch("float32", (1, 4), strides=(18, 4)).stride()[1] == 1
        gc.collect()


def test_dlpack_without_a_copy(device: Device) -> None:
    with device.allocate((4,), "int32") as memory:
        tensor = torch.from_dlpack(memory)
        tensor[:] = 5
        assert (memory.numpy() == 5).all()
        del tensor
        gc.collect()


WRITES = {
    "in place": lambda t: t.add_(1),
    "by an operator": lambda t: t.__iadd__(1),
    "by an index": lambda t: t.__setitem__(0, 1),
    "through a view": lambda t: t[0].fill_(1),
    "through views of views": lambda t: t.view(-1)[2:].reshape(5, 2).t().zero_(),
    "as an output": lambda t: torch.add(t, 1, out=t),
    "by a copy": lambda t: t.copy_(torch.ones(3, 4)),
    "after detach": lambda t: t.detach().mul_(2),
    "by a function": lambda t: torch.nn.functional.relu(t, inplace=True),
    "several at once": lambda t: torch._foreach_add_([t], 1),
}


@pytest.mark.parametrize("how", WRITES)
def test_a_read_only_tensor_is_not_written(how: str, device: Device, name: str) -> None:
    with device.allocate((3, 4), "float32", name=name, access=extmem.Access.READ) as memory:
        memory.numpy()[:] = 7
        with device.open(name) as other:
            assert other.read_only
            tensor = other.torch()
            with pytest.raises(PermissionError, match=r"read-only in this process; open it with Access\.READ_WRITE"):
                WRITES[how](tensor)
            del tensor
            gc.collect()
        assert (memory.numpy() == 7).all()


def test_a_read_only_tensor_is_read_like_any(device: Device, name: str) -> None:
    with device.allocate((3, 4), "float32", name=name, access=extmem.Access.READ) as memory:
        memory.numpy()[:] = numpy.arange(12).reshape(3, 4)
        with device.open(name) as other:
            tensor = other.torch()
            assert float(tensor.sum()) == 66 and (tensor + 1).max().item() == 12
            changed = tensor.clone()
            changed[0] = 9
            made = torch.nn.functional.conv2d(tensor[None, None], torch.ones(1, 1, 2, 2))
            assert type(made) is torch.Tensor and made.shape == (1, 1, 2, 3)
            assert type(changed) is torch.Tensor
            del tensor, changed, made
            gc.collect()


@pytest.fixture
def reading(device: Device, name: str) -> Iterator[DeviceMemory]:
    """Memory of 3 by 4 numbers with read access only; at the end they must be unchanged."""
    with device.allocate((3, 4), "float32", name=name, access=extmem.Access.READ) as memory:
        memory.numpy()[:] = NUMBERS
        with device.open(name) as other:
            yield other
            gc.collect()
        assert (memory.numpy() == NUMBERS).all()


def sparse(values: Any) -> Any:
    """Return a sparse tensor over these four values."""
    return torch.sparse_coo_tensor(torch.arange(4)[None], values, check_invariants=True)


def compressed(values: Any) -> Any:
    """Return a row of these four values in compressed form."""
    places = torch.tensor([0, 4]), torch.arange(4)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Sparse CSR tensor support is in beta")
        return torch.sparse_csr_tensor(*places, values, size=(1, 4), check_invariants=True)


NUMBERS = numpy.arange(12, dtype="float32").reshape(3, 4)

READS = {
    "repr": lambda t: repr(t)[-60:] and len(repr(t)) > 40 and repr(t).endswith("read_only=True)"),
    "str": lambda t: str(t) == repr(t),
    "format": lambda t: f"{t}" == repr(t),
    "statistics": lambda t: torch.nn.functional.batch_norm(torch.ones(2, 4), t[0], t[1] + 1).isfinite().all(),
    "to a sparse tensor": lambda t: t.to_sparse().to_dense().equal(t.clone()),
    "a sparse copy": lambda t: sparse(t[0].clone())._values().add_(1)[0] == 1,
    "reshaped": lambda t: torch.ops.aten._unsafe_view(t, (12,)).sum() == 66,
    "format of one": lambda t: f"{t[1, 1]:.2f}" == "5.00" and "5." in f"{t[1, 1]}",
    "repr of one": lambda t: repr(t[1, 1]).startswith("tensor(5."),
    "repr of none": lambda t: "size=(0, 4)" in repr(t[:0]),
    "tolist": lambda t: t.tolist() == NUMBERS.tolist(),
    "tolist of one": lambda t: t[0, 1].tolist() == 1.0,
    "item": lambda t: t[2, 3].item() == 11 == int(t[2, 3]) == float(t[2, 3]),
    "bool": lambda t: bool(t[0, 1]) and not bool(t[0, 0]),
    "iteration": lambda t: [row.tolist() for row in t] == NUMBERS.tolist() and len(t) == 3,
    "numpy": lambda t: (t.numpy() == NUMBERS).all(),
    "numpy of a part": lambda t: (t[1:, ::2].numpy() == NUMBERS[1:, ::2]).all(),
    "numpy by force": lambda t: (t.numpy(force=True) == NUMBERS).all(),
    "numpy.asarray": lambda t: (numpy.asarray(t) == NUMBERS).all(),
    "numpy.asarray as another type": lambda t: numpy.asarray(t, "int64").dtype == "int64",
    "numpy.array": lambda t: numpy.array(t, copy=True).flags.writeable,
    "numpy.from_dlpack": lambda t: (numpy.from_dlpack(t) == NUMBERS).all(),
    "cpu": lambda t: (t.cpu().numpy() == NUMBERS).all(),
    "to": lambda t: t.to(torch.float64).sum() == 66,
    "equal": lambda t: torch.equal(t, torch.tensor(NUMBERS)) and (t == t).all(),
    "is_shared": lambda t: t.is_shared() is False,
    "stack": lambda t: torch.stack([t, t]).shape == (2, 3, 4),
    "collate": lambda t: torch.utils.data.default_collate([t, t]).shape == (2, 3, 4),
    "new": lambda t: type(t.new(3)) is torch.Tensor,
    "without gradients": lambda t: (t.data.tolist(), t.detach().tolist()) == (NUMBERS.tolist(),) * 2,
    "a module": lambda t: torch.nn.Linear(4, 2)(t).shape == (3, 2),
    "gradients": lambda t: _gradient(t).tolist() == NUMBERS.tolist(),
    "where it is": lambda t: t.data_ptr() and t[1:].storage_offset() == 4 and t.stride() == (4, 1),
}


def _gradient(tensor: Any) -> Any:
    weight = torch.ones(3, 4, requires_grad=True)
    (weight * tensor).sum().backward()
    return weight.grad


@pytest.mark.parametrize("how", READS)
def test_a_read_only_tensor_is_read_in_all_the_usual_ways(how: str, reading: DeviceMemory) -> None:
    tensor = reading.torch()
    assert READS[how](tensor)


@pytest.mark.parametrize(
    "look",
    [
        lambda t: t.numpy(),
        lambda t: t[1:, ::2].numpy(),
        lambda t: t.numpy(force=True),
        lambda t: t.cpu().numpy(),
        lambda t: numpy.asarray(t),
        lambda t: numpy.from_dlpack(t),
    ],
    ids=["numpy", "part", "force", "cpu", "asarray", "dlpack"],
)
def test_arrays_of_a_read_only_tensor_are_read_only(reading: DeviceMemory, look: Any) -> None:
    array = look(reading.torch())
    with pytest.raises(ValueError, match="read-only"):
        array[0] = 1
    with pytest.raises(ValueError, match="WRITEABLE"):
        array.flags.writeable = True  # a write would be a segmentation fault
    with pytest.raises(extmem.LiveViewError):
        reading.close()


COPIES = {
    "clone": lambda t: t.clone(),
    "deepcopy": copy.deepcopy,
    "deepcopy of what holds it": lambda t: copy.deepcopy({"x": [t]})["x"][0],
    "pickle": lambda t: pickle.loads(pickle.dumps(t)),
    "pickle of a view": lambda t: pickle.loads(pickle.dumps(t.view(-1)))[:12].view(3, 4),
    "torch.save": lambda t: _saved({"x": t})["x"],
    "torch.tensor": lambda t: torch.tensor(t.tolist()),
    "from_dlpack": lambda t: torch.from_dlpack(t, copy=True),
}


def _saved(what: Any) -> Any:
    file = io.BytesIO()
    torch.save(what, file)
    file.seek(0)
    return torch.load(file)


@pytest.mark.parametrize("how", COPIES)
def test_a_copy_of_a_read_only_tensor_is_a_plain_one(how: str, reading: DeviceMemory) -> None:
    copied = COPIES[how](reading.torch())
    assert type(copied) is torch.Tensor and copied.tolist() == NUMBERS.tolist()
    copied += 1  # its own bytes


def test_a_shallow_copy_is_the_same_memory(reading: DeviceMemory) -> None:
    copied = copy.copy(reading.torch())
    with pytest.raises(PermissionError):
        copied.zero_()


def test_two_copies_of_one_in_one_deep_copy_are_one(reading: DeviceMemory) -> None:
    tensor = reading.torch()
    first, second = copy.deepcopy([tensor, tensor])
    assert first is second


BYPASSES = {
    "its storage": lambda t: t.untyped_storage().fill_(0),
    "its typed storage": lambda t: t.storage().fill_(0),
    "its data": lambda t: t.data.zero_(),
    "another storage": lambda t: t.set_(torch.zeros(12)),
    "another size": lambda t: t.resize_(2),
    "other data": lambda t: setattr(t, "data", torch.zeros(2)),
    "a function of Python's": lambda t: t.apply_(lambda x: 0.0),
    "two of Python's": lambda t: t.map_(t, lambda x, y: 0.0),
    "shared memory": lambda t: t.share_memory_(),
    "a capsule": lambda t: torch.from_dlpack(t).zero_(),
    "an initialiser": torch.nn.init.zeros_,
    "an optimiser": lambda t: torch._foreach_zero_([t, t[1:]]),
    "bits": lambda t: t.view(torch.int32).zero_(),
    "diagonal": lambda t: t.diagonal().zero_(),
    "unbound": lambda t: t.unbind()[0].zero_(),
    "split": lambda t: t.split(1)[0].zero_(),
    "expanded": lambda t: t[:1].expand(3, 4).zero_(),
    "by a mask": lambda t: t.masked_fill_(t > 3, 0),
    "by indices": lambda t: t.index_put_((torch.tensor([0]),), torch.tensor(0.0)),
    "random": lambda t: t.random_(),
    "as the memory of another": lambda t: torch.zeros(1).set_(t).zero_(),
    "a view that is not declared": lambda t: torch.ops.aten._unsafe_view(t, (12,)).zero_(),
    "running statistics": lambda t: torch.nn.functional.batch_norm(torch.ones(2, 4), t[0], t[1], training=True),
    "values of a sparse tensor": lambda t: sparse(t[0])._values().zero_(),
    "values of compressed rows": lambda t: compressed(t[0]).values().zero_(),
    "out of place and back": lambda t: torch.normal(0.0, 1.0, (3, 4), out=t),
}


@pytest.mark.parametrize("how", BYPASSES)
def test_access_to_the_bytes_without_an_operation_is_refused(how: str, reading: DeviceMemory) -> None:
    with pytest.raises((PermissionError, BufferError, extmem.UnsupportedError)):
        BYPASSES[how](reading.torch())


def test_a_part_with_steps_is_read_only_too(reading: DeviceMemory) -> None:
    tensor = reading.torch("float32", (2, 2), strides=(32, 8), offset=4)
    assert tensor.tolist() == [[1, 3], [9, 11]]
    with pytest.raises(PermissionError):
        tensor[0, 0] = 1


# What PyTorch imports by itself.


@pytest.mark.parametrize("take", ["from_dlpack", "as_tensor", "asarray", "tensor"])
def test_pytorch_gets_no_read_only_memory_without_the_guard(take: str, reading: DeviceMemory) -> None:
    """It requests an array that may be read-only, and ignores the flag: the first write would end the process."""
    with pytest.raises(BufferError, match=r"memory\.torch\(\), which returns a tensor that refuses writes"):
        getattr(torch, take)(reading)


def test_pytorch_gets_a_copy_of_read_only_memory(reading: DeviceMemory) -> None:
    copied = torch.from_dlpack(reading, copy=True)
    copied += 1
    assert copied.sum() == 66 + 12


@pytest.mark.parametrize("take", ["from_dlpack", "as_tensor", "asarray", "tensor"])
def test_pytorch_gets_writable_memory(take: str, device: Device) -> None:
    with device.allocate(4, "float32") as memory:
        memory.write([1.0, 2, 3, 4])
        tensor = getattr(torch, take)(memory)
        assert tensor.tolist() == [1, 2, 3, 4]
        del tensor
        gc.collect()


def test_a_read_only_array_on_a_gpu_is_guarded_likewise(name: str) -> None:
    fake = fake_cuda.FakeCuda()
    with fake_cuda.installed(fake), extmem.open_device(kind="cuda") as cuda:
        with cuda.allocate((4,), name=name, access=extmem.Access.READ), cuda.open(name) as memory:
            for asked in (memory, memory.device_array()):
                with pytest.raises(BufferError, match=r"memory\.torch\(\), which returns a tensor that refuses writes"):
                    torch.utils.dlpack.from_dlpack(_without_stream(asked))
            del asked
            gc.collect()


class _without_stream:
    """What PyTorch finds on a GPU that it supports: it queries its stream first, and here is none."""

    def __init__(self, array: Any) -> None:
        self.__dlpack__ = array.__dlpack__

    def __dlpack_device__(self) -> tuple[int, int]:
        return (1, 0)


# Into other processes.

LOADER = """
import sys
import torch, extmem

class Rows(torch.utils.data.Dataset):
    # Of a tensor or memory that is sent, or of memory that each worker opens by its name.
    def __init__(self, source): self.source = source

    def __len__(self): return 3

    def __getitem__(self, row):
        if isinstance(self.source, str): self.source = extmem.open(self.source)
        return (self.source.torch() if isinstance(self.source, extmem.DeviceMemory) else self.source)[row]

if __name__ == "__main__":
    memory = extmem.open(sys.argv[1])
    sums = []
    for source in (memory.torch(), memory, sys.argv[1]):
        loader = torch.utils.data.DataLoader(Rows(source), 2, num_workers=1, multiprocessing_context="spawn")
        sums.append(sum(float(batch.sum()) for batch in loader))
    print("sums", sums)
"""


def test_a_data_loader_that_spawns_takes_read_only_tensors_and_memory(
    reading: DeviceMemory, tmp_path: Path, runtime: Any
) -> None:
    script = tmp_path / "loader.py"
    script.write_text(LOADER)
    with Child([sys.executable, "-W", "ignore", str(script), str(reading.name)]) as child:
        child.wait(deadline=300)  # it starts three more processes that import PyTorch
        assert "sums [66.0, 66.0, 66.0]" in child.output


MOVES = {
    "share_memory_": lambda t: t.share_memory_(),
    "its storage": lambda t: t.untyped_storage().share_memory_(),
}


@pytest.mark.parametrize("how", MOVES)
def test_a_tensor_that_pytorch_shares_itself_has_left_the_memory(how: str, device: Device) -> None:
    """Therefore the memory is what to send. The result of `torch()` in the receiver is on the memory, as before."""
    with device.allocate(4, "float32") as memory:
        tensor, other = memory.torch(), memory.torch()
        MOVES[how](tensor)  # as torch.multiprocessing does to what is put into a queue
        tensor.fill_(3)
        assert memory.numpy().tolist() == [0, 0, 0, 0]
        pickle.loads(pickle.dumps(memory)).torch().fill_(5)
        assert memory.numpy().tolist() == other.tolist() == memory.torch().tolist() == [5, 5, 5, 5]
        del other
        gc.collect()


def test_a_build_without_cuda_is_reported() -> None:
    if torch.version.cuda is not None:
        pytest.skip("PyTorch is not installed without CUDA")
    fake = fake_cuda.FakeCuda()
    with fake_cuda.installed(fake), extmem.open_device(kind="cuda") as cuda, cuda.allocate((4,)) as memory:
        with pytest.raises(extmem.UnsupportedError, match="is without CUDA; install a build with CUDA"):
            memory.torch()
        gc.collect()
    assert not fake.misuses and not fake.alive()
