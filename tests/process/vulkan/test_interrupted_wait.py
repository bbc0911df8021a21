"""An interrupt while the device works on commands: real work, on a real driver, in a process of its own."""

from __future__ import annotations

import pytest

from extmem.testing.children import Peer
from tests.process.vulkan.commands_setup import ENVIRONMENT, SETTING

pytestmark = pytest.mark.linux_only("the scripted driver that stands in elsewhere is never slow")


@pytest.mark.parametrize("end", ["waits", "exits"])
def test_an_interrupt_ends_the_wait_and_not_the_commands(end: str, vulkan_device: object) -> None:
    """What the commands use exists until they are done, though it is closed; or until the process ends at once."""
    with Peer(env=ENVIRONMENT) as peer:
        peer(SETTING, kind="vulkan")
        peer(
            "import os, signal, threading, time\n"
            "b, m = buffer(1 << 26)\ng, n = buffer(4)\n"
            "transfer = d.backend.transfers.submissions\n"
            "def interrupt():\n"
            "    while not transfer._submitted: time.sleep(0.001)\n"
            "    signal.raise_signal(signal.SIGINT) if os.name == 'nt' else os.kill(os.getpid(), signal.SIGINT)\n"
            "def work(c):\n"
            "    for n in range(1, rounds): c.fill_buffer(b, n)\n"
            "    c.copy_buffer(b, g, size=4)\n"
            "    threading.Thread(target=interrupt, daemon=True).start()",
            rounds=4000 if end == "exits" else 60,
        )
        error = peer.fails("signal.signal(signal.SIGINT, signal.default_int_handler)\nrun(work)")
        assert error.is_a("KeyboardInterrupt")
        assert peer("bool(transfer._submitted)"), "the commands still run"
        peer("close(b, m)")
        if end == "exits":
            peer.leave()
            return
        assert peer("n.tobytes()[:4] == (59).to_bytes(4, 'little') and not transfer._submitted")
        peer("close(g, n)\nd.close()")
        peer.leave()
