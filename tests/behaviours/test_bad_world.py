"""The environment lacks something: a broker, a private directory, memory. Each raises a clear error."""

from __future__ import annotations

import resource

from extmem import errors
from extmem.testing.children import Peer
from extmem.testing.runtime import Runtime
from tests.behaviours.steps import PEER


def test_no_broker_and_no_right_to_start_one(own_runtime: Runtime) -> None:
    with Peer(env={**own_runtime.environment, "EXTMEM_BROKER_START": "never"}) as peer:
        peer(PEER)
        error = peer.fails("export(device)")
        assert error.is_a(errors.UnsupportedError)
        assert str(own_runtime.path) in error.message and "EXTMEM_BROKER_START" in error.message
        # What needs no object manager works: fds belong to the device.
        assert peer("memory = export(device, types=FD)\nput(memory, b'solo')\nget(memory)") == b"solo"
        assert (
            peer("with fd(device, memory) as handle, import_fd(device, handle) as other: found = get(other)\nfound")
            == b"solo"
        )


def test_a_runtime_directory_that_others_can_enter(own_runtime: Runtime) -> None:
    own_runtime.path.chmod(0o755)
    with Peer(env=own_runtime.environment) as peer:
        peer(PEER)
        error = peer.fails("export(device)")
        assert error.is_a(errors.UnsupportedError) and str(own_runtime.path) in error.message


def test_a_memory_limit(own_runtime: Runtime) -> None:
    """RLIMIT_FSIZE has the effect of a full /dev/shm: the reservation of the payload fails."""
    with Peer(env=own_runtime.environment) as peer:
        peer(PEER + "\nimport resource, signal\nsignal.signal(signal.SIGXFSZ, signal.SIG_IGN)")
        peer(f"resource.setrlimit(resource.RLIMIT_FSIZE, ({1 << 20}, {resource.RLIM_INFINITY}))")
        error = peer.fails(f"export(device, size={1 << 24})")
        assert error.is_a(errors.OutOfMemoryError) and error.is_a(MemoryError)
        assert str(1 << 24) in error.message
        peer("export(device).close()")


def test_too_many_open_files(own_runtime: Runtime) -> None:
    with Peer(env=own_runtime.environment) as peer:
        peer(PEER + "\nimport resource\nexport(device).close()")
        peer(f"resource.setrlimit(resource.RLIMIT_NOFILE, (40, {resource.getrlimit(resource.RLIMIT_NOFILE)[1]}))")
        peer("kept = []")
        error = peer.fails("while True: kept.append(export(device))")
        assert error.is_a(errors.OutOfMemoryError) or error.is_a(OSError)
        peer("[memory.close() for memory in kept]\nkept.clear()\nexport(device).close()")
