"""Which messages are allowed: control by the broker's own user and root; each user lists only what it may open."""

from __future__ import annotations

import pytest

from extmem.testing.children import Peer
from extmem.testing.runtime import Runtime
from tests.process.broker.conftest import Start
from tests.process.broker.steps import BECOME, OTHER, SYSTEM, heir, needs_root, system_broker

NAMES = "sorted(name.rpartition(chr(92))[2] for row in m.snapshot() for name in row.names)"


@pytest.fixture
def owner(own_runtime: Runtime, start: Start) -> Peer:
    needs_root()
    peer = start()
    peer(
        "a = share('hidden', b'hello')\nb = share('shown', b'hello', sddl='D:(A;;GA;;;OW)(A;;GR;;;WD)', inherit=True)\n"
        "h = m.get_handle(b.number)\nk = share(kmt=True)"
    )
    return peer


def test_an_heir_of_another_user_cannot_end_the_broker(own_runtime: Runtime, owner: Peer) -> None:
    pid = own_runtime.broker_pid()
    for force in (True, False):
        output = heir(owner, f"ask(wire.Stop({force}))")
        assert "AccessDeniedError" in output and f"user {OTHER}" in output and "user 0" in output
    assert own_runtime.broker_pid() == pid and owner("reads('hidden')") == b"hello"


def test_an_heir_of_the_same_user_can(own_runtime: Runtime, owner: Peer) -> None:
    assert heir(owner, "print(ask(wire.Stop(False)).value > 0)", uid=0) == "True"
    assert heir(owner, "print(ask(wire.Stop(True)).value)", uid=0) == "0"


def test_a_child_of_another_user_gets_an_error_for_what_it_may_not_open(owner: Peer) -> None:
    assert heir(owner, f"print({NAMES}, len(m.snapshot()))") == "['shown'] 1"
    assert heir(owner, f"print({NAMES}, len(m.snapshot()))", uid=0) == "['hidden', 'shown'] 3"


def test_what_is_hidden_cannot_be_seen_through_what_is_shown(start: Start, owner: Peer) -> None:
    """Two objects on one payload: one that everyone may read, one that only its owner may."""
    owner("fd = payload()\nm.export([fd], b'', share=Share.NT, name='p', access=ALL, sddl=None, inherit=False)")
    owner("m.export([fd], b'', share=Share.NT, name='q', access=ALL, sddl='D:(A;;GR;;;WD)', inherit=False)")
    assert heir(owner, f"print({NAMES})") == "['q', 'shown']"


def test_clients_of_the_systems_broker_control_and_see_what_is_theirs(own_runtime: Runtime, start: Start) -> None:
    with system_broker(own_runtime) as broker:
        root, other, third = start(), start(), start()
        root(SYSTEM + "share('hidden')\nshare('shown', sddl='D:(A;;GR;;;WD)')")
        other(BECOME + "become()\n" + SYSTEM + "share('mine')\nkmt = share(kmt=True)")
        third(BECOME + f"become({OTHER + 1})\n" + SYSTEM)
        for peer in (other, third):
            assert peer.fails("m.stop(force=True)").is_a("AccessDeniedError")
            assert peer("m.status().pid") == broker.pid
        assert root(NAMES) == ["hidden", "mine", "shown"]
        assert other(NAMES) == ["mine", "shown"] and other("len(m.snapshot())") == 3
        assert third(NAMES) == ["shown"] and third("len(m.snapshot())") == 1
        assert broker.alive
        assert root("m.stop(force=True)") is True
        broker.wait()
