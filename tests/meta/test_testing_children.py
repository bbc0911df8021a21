"""Children have deadlines: hanging ones are killed, failed ones show their output, forgotten ones are found."""

from __future__ import annotations

import time

import pytest

from extmem.testing.children import Child, ChildFailedError, Peer, RemoteError, kill_all, live_children
from extmem.testing.waiting import DeadlineError, wait_until

# A child that hangs must end soon even if everything here fails.
HANG = "import time\nprint('about to hang', flush=True)\ntime.sleep(60)"


def test_a_hanging_child_fails_in_seconds_and_is_killed() -> None:
    started = time.monotonic()
    with Child.python(HANG) as child:
        wait_until(lambda: "about to hang" in child.output, "the child to begin")
        with pytest.raises(DeadlineError, match="about to hang"):
            child.wait(deadline=0.2)
        assert not child.alive
    assert time.monotonic() - started < 30


def test_a_child_that_ends_well_passes() -> None:
    with Child.python("print('fine')") as child:
        assert child.wait() == 0
        assert child.output == "fine\n"


def test_a_failing_child_shows_exit_code_and_output() -> None:
    with Child.python("import sys\nprint('the reason')\nsys.exit(3)") as child:
        with pytest.raises(ChildFailedError, match="ended with 3, not 0:\nthe reason"):
            child.wait()
    with Child.python("import sys\nsys.exit(3)") as child:
        child.wait(expect=3)


def test_a_forgotten_child_is_found_and_ended() -> None:
    child = Child.python(HANG)
    assert child in live_children()
    ended = kill_all()
    assert any(str(child.pid) in line for line in ended)
    assert not child.alive and kill_all() == []


def test_a_peer_answers_and_keeps_its_namespace() -> None:
    with Peer() as peer:
        assert peer("x = 20") is None
        assert peer("x + y", y=22) == 42
        peer.leave()


def test_a_peers_exception_comes_back_with_its_facts() -> None:
    with Peer() as peer:
        error = peer.fails("extmem.open('nobody has that name')")
        assert error.is_a(FileNotFoundError) and error.is_a("NameNotFoundError") and not error.is_a(ValueError)
        assert error.ntstatus == 0xC0000034 and error.winerror == 2
        assert "nobody has that name" in error.message
        with pytest.raises(RemoteError, match="ZeroDivisionError"):
            peer("1 / 0")
        with pytest.raises(ChildFailedError, match="should have failed"):
            peer.fails("1 + 1")


def test_a_peer_that_dies_reports_it() -> None:
    with Peer() as peer:
        with pytest.raises(ChildFailedError, match="exit code 7"):
            peer("print('last words')\nos._exit(7)")


def test_a_peer_that_hangs_shows_where() -> None:
    with Peer() as peer:
        peer("import time")
        with pytest.raises(DeadlineError, match="in sit_still"):
            peer("def sit_still():\n    time.sleep(60)\nsit_still()", deadline=1)
        assert not peer.alive


def test_waiting_ends() -> None:
    with pytest.raises(DeadlineError, match=r"0\.05 s in vain for nothing"):
        wait_until(lambda: False, "nothing", deadline=0.05)
    assert wait_until(lambda: "true", "something") == "true"
