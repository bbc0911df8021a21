"""Every one of these tests is also a leak test, as those of the numbered behaviours are."""

from __future__ import annotations

import mmap
import os
from collections.abc import Iterator

import pytest


@pytest.fixture(scope="session", autouse=True)
def kernel32_has_its_directory() -> None:
    """kernel32 opens the session's directory of names at its first named object and keeps it: not a leak of a test."""
    mmap.mmap(-1, 4096, tagname=f"extmem-test-first-{os.getpid()}").close()


@pytest.fixture(autouse=True)
def nothing_left(runtime: object) -> Iterator[None]:
    """This fixture is requested first, so its end runs last."""
    from extmem.testing.leaks import no_leaks

    with no_leaks():
        yield
