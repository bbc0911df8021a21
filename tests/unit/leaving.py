"""A fixture of every test of memory objects: nothing is left behind."""

from __future__ import annotations

from collections.abc import Iterator

import pytest


@pytest.fixture(autouse=True)
def nothing_left(request: pytest.FixtureRequest, runtime: object) -> Iterator[None]:
    """Requested first, so it looks last. Pure tests need no object manager, and are left alone."""
    if not {"device", "name"} & set(request.fixturenames):
        yield
        return
    from extmem.testing.leaks import no_leaks

    with no_leaks():
        yield
