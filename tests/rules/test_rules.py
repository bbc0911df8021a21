"""Every checked rule: the call that breaks it is reported, and its nearest legal twin is not."""

from __future__ import annotations

import pytest

from tests.rules.cases import CASES


@pytest.mark.parametrize("vuid", CASES)
def test_negative(vuid: str) -> None:
    """The call breaks this rule, and besides only those that it breaks by necessity."""
    case = CASES[vuid]
    found = [v.vuid for v in case.wrong()]
    assert vuid in found
    assert set(found) - {vuid} == case.also
    assert len(found) == len(set(found)), "a rule is reported once a call"


@pytest.mark.parametrize("vuid", CASES)
def test_positive(vuid: str) -> None:
    """The nearest legal call breaks nothing at all."""
    assert CASES[vuid].right() == []
