"""Pickles of parts and named arrays: to spawned processes, without NumPy, after their source was closed, too late."""

from __future__ import annotations

import multiprocessing
import pickle
from collections.abc import Iterator
from typing import Any

import msgspec
import numpy as np
import pytest

import extmem
from extmem import _pickles
from extmem.errors import DescriptorError, HandleStateError
from extmem.testing import leaks
from extmem.testing.children import Peer
from extmem.testing.runtime import Runtime
from extmem.testing.waiting import DEADLINE, wait_until
from tests.process import workers

VALUES = np.arange(24, dtype="float32").reshape(4, 6)
WITHOUT_NUMPY = """
import sys
for name in ("numpy", "torch", "jax", "cupy"):
    sys.modules[name] = None
import pickle, extmem
def outcome(use):
    try:
        return use()
    except Exception as error:
        return type(error).__name__, str(error)
None
"""


@pytest.fixture
def memory() -> Iterator[Any]:
    with extmem.share({"w": VALUES, "b": {"c": VALUES[0]}}, metadata={"step": 3}) as made:
        yield made


@pytest.mark.slow("starts processes by multiprocessing")
def test_to_a_spawned_process(memory: Any) -> None:
    spawn = multiprocessing.get_context("spawn")
    answers = spawn.Queue()
    for sent, wanted in (
        (memory["w"][1:, ::2], VALUES[1:, ::2]),
        (memory["w"][::-1, 3], VALUES[::-1, 3]),
        (memory, VALUES),
    ):
        process = spawn.Process(target=workers.values, args=(sent, answers))
        process.start()
        assert answers.get(timeout=DEADLINE) == wanted.tolist()
        process.join(DEADLINE)
        assert process.exitcode == 0
        process.close()
    answers.close()


def test_to_a_process_without_numpy_and_pytorch(memory: Any) -> None:
    with Peer() as peer:
        peer(WITHOUT_NUMPY)
        peer("part, arrays = pickle.loads(part), pickle.loads(arrays)",
             part=pickle.dumps(memory["w"][2, 1:3]), arrays=pickle.dumps(memory))  # fmt: skip
        assert peer("part.shape, part.dtype, part.strides, part.nbytes") == ((2,), "float32", (4,), 8)
        assert bytes(peer("part.memory.read_bytes(part.offset, part.nbytes)")) == VALUES[2, 1:3].tobytes()
        assert peer("list(arrays), dict(arrays.metadata)") == (["w", "b.c"], {"step": 3})
        assert peer("[(one.name if one.name else '', arrays['b.c'].shape) for one in [arrays]]") == [("", (6,))]
        for use, named in (("part.numpy", "NumPy"), ("part.torch", "PyTorch"), ("arrays.numpy", "NumPy")):
            kind, text = peer(f"outcome({use})")
            assert kind == "UnsupportedError" and named in text and "install" in text, (use, kind, text)
        peer("part.close()\narrays.close()")


@pytest.mark.parametrize("of", ["part", "arrays"])
def test_after_the_source_was_closed(peer: Peer, of: str) -> None:
    with extmem.share({"w": VALUES}) as memory:
        data = pickle.dumps(memory["w"][1] if of == "part" else memory)
    peer("import pickle, extmem")
    peer("thing = pickle.loads(data)", data=data)
    wanted = VALUES[1] if of == "part" else VALUES
    assert peer("(thing if hasattr(thing, 'layout') else thing['w']).numpy().tolist()") == wanted.tolist()
    peer("thing.close()")


def test_what_is_closed_is_not_pickled(memory: Any) -> None:
    part, whole = memory["w"][1], memory
    pickle.loads(pickle.dumps(part)).close()
    memory.close()
    for thing in (part, whole):
        with leaks.no_leaks(), pytest.raises(HandleStateError, match="closed"):
            pickle.dumps(thing)


@pytest.mark.linux_only("on Windows the sender keeps it")
@pytest.mark.slow("starts a broker whose tickets end at once")
def test_too_late(own_runtime: Runtime) -> None:
    with Peer(env={**own_runtime.environment, "EXTMEM_TICKET_SECONDS": "0.05"}) as peer:
        peer("import pickle, time, extmem, numpy\nfrom extmem.manager import manager")
        peer("memory = extmem.share({'w': numpy.ones(3)})\ndata = pickle.dumps(memory['w'][1:]), pickle.dumps(memory)")
        peer("memory.close()")  # what its sender holds can be claimed late
        wait_until(lambda: peer("manager().snapshot()") == [], "the tickets to end")
        peer("late = [pickle.loads(one) for one in data]")
        assert peer("[one.memory.closed if hasattr(one, 'memory') else one.closed for one in late]") == [True, True]
        for use in ("late[0].numpy()", "late[0].read()", "late[0][1:].numpy()", "late[1].read_bytes()"):
            error = peer.fails(use)
            assert error.is_a("InvalidHandleError") and "ticket" in error.message, error.message
        peer("[one.close() for one in late]")


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\xc1",
        msgspec.msgpack.encode((b"x" * 17, "float32", (2,))),
        msgspec.msgpack.encode((b"x" * 17, "float32", (2,), (4,), "0")),
    ],
    ids=["nothing", "no message", "too short", "a wrong type"],
)
def test_a_pickle_of_other_bytes_gives_a_closed_part(data: bytes) -> None:
    part = _pickles.receive_slice(data)
    with pytest.raises(DescriptorError, match="pickle the part anew"):
        part.numpy()
    part.close()


@pytest.mark.parametrize(
    "changed",
    [
        {1: "float33"}, {1: "object"}, {2: (1 << 40,)}, {2: (-1, 6)}, {3: (4,)}, {3: (1 << 62, 4)}, {4: 1 << 40},
        {4: -4},
    ],
    ids=str,
)  # fmt: skip
def test_a_pickle_of_another_layout_gives_a_closed_part(memory: Any, changed: dict[int, Any]) -> None:
    pickle.loads(pickle.dumps(memory["w"])).close()  # what is imported once stays with the memory
    with leaks.no_leaks():
        _, (data,) = memory["w"].__reduce__()
        fields = list(msgspec.msgpack.decode(data))
        for at, value in changed.items():
            fields[at] = value
        part = _pickles.receive_slice(msgspec.msgpack.encode(fields))
        with pytest.raises(DescriptorError, match="of another payload.*pickle the part anew"):
            part.numpy()
        part.close()
        del part
