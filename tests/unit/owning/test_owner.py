"""Owners in a forked child: also those that another thread was creating, and whatever error one of them raises."""

from __future__ import annotations

import subprocess
import sys

import pytest

from extmem.testing.children import python_environment

pytestmark = pytest.mark.linux_only("Windows has no fork")
DEADLINE = 60

BEGIN = """
import os, sys
from extmem.owning import OwnedFd, Owner
from extmem.owning.fd import OwnedDescriptor

def is_open(fd):
    try:
        os.fstat(fd)
    except OSError:
        return False
    return True

def closed_in_child():
    # Forks. Returns which of these two are closed in the child: an owner older and one younger than `failing`.
    pid = os.fork()
    if pid == 0:
        os._exit(10 + (not is_open(older.fd)) + 2 * (not is_open(younger.fd)))
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) - 10

older = OwnedFd.of(os.memfd_create, "older")
"""


def run(code: str) -> tuple[str, str]:
    done = subprocess.run(
        [sys.executable, "-c", BEGIN + code],
        env=python_environment(),
        capture_output=True,
        text=True,
        timeout=DEADLINE,
        stdin=subprocess.DEVNULL,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip(), done.stderr


@pytest.mark.parametrize("owner", ["OwnedFd", "OwnedDescriptor"])
def test_a_fork_in_the_call_that_opens_an_fd(owner: str) -> None:
    code = f"""
younger = OwnedFd.of(os.memfd_create, "younger")
def opening():
    print(closed_in_child(), flush=True)
    yield os.memfd_create("new")
new = {owner}(numbers=opening())
print(is_open(new.fd), is_open(older.fd))
"""
    assert run(code) == ("3\nTrue True", "")


def test_an_error_of_one_owner_leaves_no_other_open_in_the_child() -> None:
    code = """
class Failing(Owner):
    def in_forked_child(self):
        raise OSError("planted")
failing = Failing(((id, 0),))
younger = OwnedFd.of(os.memfd_create, "younger")
print(closed_in_child())
"""
    output, errors = run(code)
    assert output == "3" and "OSError: planted" in errors


def test_an_fd_that_the_program_has_stays_open_in_the_child() -> None:
    code = """
younger = OwnedFd.of(os.memfd_create, "younger")
younger.passed_on = True
print(closed_in_child())
"""
    assert run(code) == ("1", "")
