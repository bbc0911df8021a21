"""A process that Wine fails to start is started again; every other failure is raised at once."""

from __future__ import annotations

import pytest

from tests import wine_starts


class _Start:
    """A CreateProcess that fails that often, with this Windows error, and then returns its arguments."""

    def __init__(self, failures: int, winerror: int) -> None:
        self.calls = 0
        self._failures, self._winerror = failures, winerror

    def __call__(self, program: str, *, flags: int = 0) -> tuple[str, int]:
        self.calls += 1
        if self.calls <= self._failures:
            error = OSError("CreateProcess")
            error.winerror = self._winerror  # type: ignore[misc, unused-ignore]
            raise error
        return program, flags


@pytest.fixture(autouse=True)
def _at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("time.sleep", lambda seconds: None)


@pytest.mark.parametrize("failures", range(wine_starts.TRIES))
def test_an_incomplete_start_is_made_again(failures: int) -> None:
    create = _Start(failures, wine_starts.ERROR_INTERNAL_ERROR)
    assert wine_starts.started_again(create)("python.exe", flags=4) == ("python.exe", 4)
    assert create.calls == failures + 1


def test_it_gives_up_with_the_systems_error() -> None:
    create = _Start(99, wine_starts.ERROR_INTERNAL_ERROR)
    with pytest.raises(OSError, match="CreateProcess"):
        wine_starts.started_again(create)("python.exe")
    assert create.calls == wine_starts.TRIES


def test_another_error_is_not_tried_again() -> None:
    create = _Start(1, 5)
    with pytest.raises(OSError, match="CreateProcess"):
        wine_starts.started_again(create)("python.exe")
    assert create.calls == 1
