"""Every behaviour test is also a leak test: this process holds the same before and after."""

from __future__ import annotations

from collections.abc import Iterator

import pytest


@pytest.fixture(autouse=True)
def nothing_left(runtime: object) -> Iterator[None]:
    """This fixture is requested first, so its end runs last: after the device and the peers of the test are closed."""
    from extmem.testing.leaks import no_leaks

    with no_leaks():
        yield
