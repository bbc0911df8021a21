"""Process tests are leak tests, too."""

from __future__ import annotations

from collections.abc import Iterator

import pytest


@pytest.fixture(autouse=True)
def nothing_left(runtime: object) -> Iterator[None]:
    """Requested first, so it looks last: after the device and the peers of the test are gone."""
    from multiprocessing import resource_tracker

    from extmem.testing.leaks import no_leaks

    # Children by spawn start it, and it stays.
    resource_tracker.ensure_running()
    with no_leaks():
        yield
