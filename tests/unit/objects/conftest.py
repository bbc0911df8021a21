"""The world that the object manager's unit tests start from."""

from __future__ import annotations

import pytest

from tests.unit.objects.world import World


@pytest.fixture
def world() -> World:
    return World()
