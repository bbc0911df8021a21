"""The first calls of a process import what they need: in many threads at once, and whichever call is the first."""

from __future__ import annotations

import subprocess
import sys

import pytest

from extmem.testing.children import python_environment
from extmem.testing.runtime import Runtime

DEADLINE = 100
LINUX = pytest.mark.linux_only("on Windows opening a device loads the object manager, and there are no fds")

FIRST = {
    "allocate": "device.allocate(64).close()",
    "buffer": "device.create_buffer(extmem.vk.BufferCreateInfo(size=64, usage=1)).close()",
    "open": "refused(extmem.NameNotFoundError, lambda: extmem.open('nothing'))",
    "open_handle": "refused(extmem.NameNotFoundError, lambda: extmem.open_handle('nothing'))",
    "rules": "extmem.rules.check_map_memory",
    "memory": "extmem.DeviceMemory",
    "devices": "extmem.enumerate_devices()",
    "pickle": "pickle.loads(pickle.dumps(extmem.KmtHandle(0x40000042)))",
    "pickle fd": "refused(extmem.HandleStateError, lambda: pickle.dumps(fd))",
    "raw": "extmem.raw.vk_handles",
}
"""Calls by name, each of which can be the first after the device was opened."""

_BEGIN = """
import os, pickle, sys, threading
import extmem
device = extmem.open_device(kind='host')
fd = extmem.FdHandle(os.open(os.devnull, os.O_RDONLY))
assert "extmem.core.opening" not in sys.modules

def refused(error, call):
    try:
        call()
    except error:
        return
    raise AssertionError(f"no {error.__name__}")

"""
_END = """
fd.close()
device.close()
print("done")
"""


def _run(own_runtime: Runtime, code: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", _BEGIN + code + _END],
        env=python_environment(own_runtime.environment),
        capture_output=True,
        text=True,
        timeout=DEADLINE,
        stdin=subprocess.DEVNULL,
    )
    assert (done.returncode, done.stdout) == (0, "done\n"), done.stderr


@LINUX
@pytest.mark.parametrize("name", ["allocate", "open_handle", "pickle fd"])
def test_any_call_may_be_the_first(name: str) -> None:
    with Runtime() as own_runtime:
        _run(own_runtime, FIRST[name])


@LINUX
def test_first_calls_of_many_threads_import_together() -> None:
    code = f"""
calls = {list(FIRST.values())!r} * 2
barrier, failures = threading.Barrier(len(calls)), []

def work(call):
    try:
        barrier.wait(60)
        eval(call)
    except BaseException as error:
        failures.append((call, repr(error)))

sys.setswitchinterval(1e-5)  # the threads take turns within each import
threads = [threading.Thread(target=work, args=(call,)) for call in calls]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
assert not failures, failures
"""
    with Runtime() as own_runtime:
        for _ in range(3):
            _run(own_runtime, code)
