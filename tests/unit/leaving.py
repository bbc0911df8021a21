"""The fixture `nothing_left`, a leak check around each test of memory objects."""

from __future__ import annotations

from collections.abc import Iterator

import pytest


@pytest.fixture(autouse=True)
def nothing_left(request: pytest.FixtureRequest, runtime: object) -> Iterator[None]:
    """Check for leaks after all other fixtures have ended. Tests without a device or a name are not checked."""
    if not {"device", "name"} & set(request.fixturenames):
        yield
        return
    from extmem.testing.leaks import no_leaks

    with no_leaks():
        yield
