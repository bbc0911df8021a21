"""Other users get nothing by what `attempts` lists, and an attempt that gets something is found."""

from __future__ import annotations

import pytest

from extmem.testing.children import Child, Peer
from extmem.testing.runtime import Runtime
from tests.process.broker.steps import BECOME, OTHER, needs_root
from tests.users import rounds
from tests.users.attempts import ATTEMPTS, IN_THE_WINDOW, Attempt

EVERYBODY_READS = Attempt("reads(shown)")


@pytest.fixture(autouse=True)
def root() -> None:
    needs_root()


def test_other_users_get_nothing() -> None:
    found = rounds.run("test")
    assert not found.escalations and not found.wrong and not found.ended, found
    assert found.attempts > 2 * len(ATTEMPTS) + len(IN_THE_WINDOW), "through both brokers, and again of what came back"


def test_what_another_user_gets_is_an_escalation() -> None:
    found = rounds.run("test", [EVERYBODY_READS])
    assert sum("got b'ours!' by reads(shown)" in thing for thing in found.escalations) >= 2, found
    assert not found.wrong


def test_an_attempt_that_fails_for_another_reason_is_reported() -> None:
    found = rounds.run("test", [Attempt("m.import_by_name('')", owner=False)])
    assert found.wrong and all("NameInvalidError" in thing for thing in found.wrong) and not found.escalations


def test_an_attempt_that_its_owner_cannot_make_either_is_reported() -> None:
    found = rounds.run("test", [Attempt("reads('nowhere')")])
    assert [thing for thing in found.wrong if thing.startswith("its owner got")] and not found.escalations


def test_a_payload_that_is_not_what_its_owner_made_is_an_escalation(own_runtime: Runtime) -> None:
    found = rounds.run("test", [Attempt("write(m.import_by_name(shown), b'evil!') or 'wrote'", owner=False)])
    assert not found.escalations, "written through the descriptor that everybody gets: the kernel refuses"
    with Peer(env=own_runtime.environment) as owner:
        owner(
            rounds.PEER + "hidden, shown = 'hidden', 'shown'\na = share(hidden, b'evil!')\nb = share(shown, b'ours!')"
        )
        rounds.see(found, owner)
    assert found.escalations == ["the owner finds (b'evil!', b'ours!') afterwards"]


def test_a_broker_that_ended_is_reported() -> None:
    found = rounds.Findings()
    with Child.python("import sys; sys.exit(7)") as broker:
        broker.wait(expect=7)
        assert not rounds.alive(found, broker)
    assert "ended with 7" in found.ended[0]


def test_others_are_other_users(own_runtime: Runtime) -> None:
    with Peer(env=own_runtime.environment) as peer:
        assert peer(BECOME + f"become({OTHER + 1})\nos.geteuid()") == OTHER + 1
