"""`extmem forget`, and what `extmem ps` and `extmem broker` show of memory that is kept or superseded."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest

from extmem.testing.children import Peer, python_environment
from extmem.testing.runtime import Runtime

DEADLINE = 300
BROKER = pytest.mark.linux_only("Windows has no broker, which keeps memory and gives its name to other memory")


@pytest.fixture
def house() -> Iterator[Runtime]:
    """A private runtime directory: what the command line shows is what the test did."""
    with Runtime() as private:
        yield private


def extmem_in(house: Runtime, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "extmem", *arguments],
        env=python_environment({**house.environment, "COLUMNS": "200"}),
        capture_output=True,
        text=True,
        timeout=DEADLINE,
        stdin=subprocess.DEVNULL,
    )


def json_of(house: Runtime, *arguments: str) -> Any:
    done = extmem_in(house, *arguments, "--json")
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@BROKER
def test_kept_memory_is_listed_without_an_owner_until_it_is_forgotten(house: Runtime) -> None:
    with Peer(env=house.environment) as publisher:
        publisher("extmem.open_device(kind='host').allocate(64, name='Kept', keep=True).close()")
    (shown,) = json_of(house, "ps")
    assert (shown["names"], shown["holders"], shown["kept"]) == (["Kept"], [], ["until forgotten"])
    assert "the broker: kept until forgotten" in extmem_in(house, "ps").stdout
    assert json_of(house, "broker", "status")["kept"] == 1
    refused = extmem_in(house, "broker", "stop")
    assert refused.returncode == 1 and "it keeps 1 payload" in refused.stderr
    assert json_of(house, "forget", "kept") == {"name": "kept", "found": True, "forgotten": True}
    assert json_of(house, "ps") == []
    again = extmem_in(house, "forget", "kept")
    assert again.returncode == 1 and "Nothing here is named kept" in again.stderr


def test_forget_without_a_broker_starts_none_and_what_is_not_kept_is_not_forgotten(house: Runtime) -> None:
    assert extmem_in(house, "forget", "x").returncode == 1
    assert not house.processes()
    with Peer(env=house.environment) as publisher:
        publisher("memory = extmem.open_device(kind='host').allocate(64, name='x')")
        done = extmem_in(house, "forget", "x")
        assert done.returncode == 1 and "x was not kept" in done.stderr
        publisher("memory.close()")


@BROKER
def test_superseded_memory_is_shown_as_such(house: Runtime) -> None:
    with Peer(env=house.environment) as publisher:
        publisher("device = extmem.open_device(kind='host'); old = device.allocate(64, name='x')")
        publisher("new = device.allocate(32, name='x', replace=True)")
        assert sorted((row["names"], row["superseded"]) for row in json_of(house, "ps")) == [([], True), (["x"], False)]
        assert "(superseded)" in extmem_in(house, "ps").stdout
        publisher("old.close(); new.close()")
