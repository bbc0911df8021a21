"""A fork after use: the child may not use what belongs to its parent, may open things of its own, and leaves the
parent intact.
"""

from __future__ import annotations

import pytest

from extmem.testing.children import Peer
from tests.behaviours.steps import PEER

# Runs `source` in a forked child and returns its output; the child ends as programs do, or as os._exit does.
FORKED = """
def forked(source, polite):
    import gc, os, warnings
    warnings.simplefilter("ignore", DeprecationWarning)
    reading, writing = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            answer = str(eval(source, globals()))
        except BaseException as error:
            answer = f"{type(error).__name__}: {error}"
        os.write(writing, answer.encode())
        os.close(writing)
        if not polite:
            os._exit(0)
        gc.collect()
        globals().clear()
        gc.collect()
        os._exit(0)
    os.close(writing)
    with open(reading, "rb") as file:
        said = file.read().decode()
    os.waitpid(pid, 0)
    return said
"""


@pytest.fixture
def forking(peer: Peer, name: str) -> Peer:
    peer(PEER + FORKED)
    peer("memory = export(device, name=name)\nhandle = nt(device, memory)\nput(memory, b'mine')", name=name)
    return peer


@pytest.mark.parametrize(
    "source",
    [
        "memory.map()",
        "memory.numpy()",
        "int(handle)",
        "handle.info",
        "handle.duplicate()",
        "nt(device, memory)",
        "__import__('pickle').dumps(memory)",
    ],
)
def test_a_forked_child_is_refused_what_is_its_parents(forking: Peer, source: str) -> None:
    output = forking("forked(source, False)", source=source)
    assert output.startswith("HandleStateError") and "fork" in output and "spawn" in output, output
    assert forking("get(memory), handle.info.handle_count") == (b"mine", 1)


@pytest.mark.parametrize("polite", [True, False])
def test_the_child_closes_nothing_of_its_parent(forking: Peer, polite: bool) -> None:
    forking("forked('memory.close() or handle.close()', polite)", polite=polite)
    assert forking("get(memory), handle.info.handle_count, get(by_name(device, name))") == (b"mine", 1, b"mine")


def test_the_child_may_begin_anew(forking: Peer) -> None:
    source = "get(by_name(extmem.open_device(), name))"
    assert forking("forked(source, False)", source=source) == "b'mine'"
    assert forking("forked(source, False)", source="extmem.open_handle(name).info.handle_count") == "2"
    assert forking("get(memory), handle.info.handle_count") == (b"mine", 1)


# A daemon closes every fd that it inherited, and opens files of its own with the same numbers.
DAEMON = """
def daemon(lose):
    import gc, os
    reading, writing = os.pipe()
    os.dup2(writing, 200)
    os.close(writing)
    if os.fork() == 0:
        os.closerange(3, 200)
        files = [open(os.devnull, "wb") for _ in range(60)]
        for thing in lose:
            exec(thing, globals())
        gc.collect()
        gone = [file.fileno() for file in files if not os.path.exists(f"/proc/self/fd/{file.fileno()}")]
        os.write(200, repr((len({file.fileno() for file in files}), gone)).encode())
        os._exit(0)
    os.close(200)
    with open(reading, "rb") as file:
        said = file.read().decode()
    os.wait()
    return eval(said)
"""
HELD = """
FD = vk.ExternalMemoryHandleTypeFlagBits.OPAQUE_FD
plain = device.allocate(64)
things = {"memory": memory, "handle": handle, "plain": plain, "fd": plain.export_handle(FD)}
things["opened"] = by_name(device, name)
view = things["opened"].map()
del memory, handle, plain
"""


@pytest.mark.parametrize(
    "lose",
    [
        "del things['memory']",
        "things['memory'].close()",
        "del things['handle']",
        "things['fd'].close()",
        "del things['fd']",
        "view.release(); del things['opened']",
        "things.clear(); del view",
    ],
)
def test_a_daemon_loses_no_file_of_its_own(forking: Peer, lose: str) -> None:
    forking(DAEMON + HELD)
    assert forking("daemon([lose])", lose=lose) == (60, [])
    assert forking("get(things['memory']), get(things['opened'])") == (b"mine", b"mine"), "the parent has its own"


def test_a_daemon_that_closes_a_file_of_its_own_is_found_out(forking: Peer) -> None:
    forking(DAEMON + HELD)
    assert forking("daemon(['import os; os.close(5)'])") == (60, [5])
