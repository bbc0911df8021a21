"""The broker's fds are divided so that no user can exclude others, or take the reserve."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from extmem.broker.fd_quota import FdQuota
from extmem.objects import Refused, Status


def greedy(quota: FdQuota, user: int, client: int) -> int:
    """Return how many a client gets that takes all it can."""
    got = 0
    try:
        while True:
            quota.take(user, client)
            got += 1
    except Refused as refusal:
        assert refusal.status is Status.QUOTA_EXCEEDED
    return got


@pytest.mark.parametrize("limit", [64, 256, 1024, 20_000])
def test_who_takes_all_that_it_can_leaves_some_to_every_newcomer(limit: int) -> None:
    quota = FdQuota(limit, "here")
    room = limit - quota.reserve
    first = greedy(quota, 1000, 1)
    assert room * 0.7 < first <= room * 0.75
    second = greedy(quota, 1000, 2)
    other_user = greedy(quota, 2000, 3)
    assert second >= room * 0.08 and other_user >= room * 0.05
    assert quota.used == first + second + other_user <= room
    # A client that others exclude can have as many once they have released theirs.
    quota.give(1000, 1, first)
    assert greedy(quota, 2000, 3) > first / 3


def test_many_clients_of_one_user_leave_some_to_another_user() -> None:
    quota = FdQuota(20_000, "here")
    for client in range(50):
        greedy(quota, 1000, client)
    assert greedy(quota, 2000, 99) > 1_000


def test_what_a_newcomer_could_get_is_reported() -> None:
    quota = FdQuota(20_000, "here")
    for _ in range(3):
        reported = quota.client_share
        taken = greedy(quota, 1000, 1)
        assert taken == pytest.approx(reported, abs=1)
        quota.give(1000, 1, taken)
    assert quota.client_share < quota.user_share <= quota.free


def test_a_refusal_names_the_place_the_limit_and_the_share() -> None:
    quota = FdQuota(100, "/run/here")
    greedy(quota, 1000, 1)
    with pytest.raises(Refused) as caught:
        quota.take(1000, 1)
    for words in ("/run/here", "100 files", "25 are kept", "this process has", "ulimit -n"):
        assert words in caught.value.detail, caught.value.detail


def test_what_a_client_leaves_to_others_is_its_users() -> None:
    quota = FdQuota(20_000, "here")
    quota.take(1000, 1, 50)
    quota.end(1)
    assert quota._users[1000] == 50 == quota.used
    quota.give(1000, 1, 50)
    assert quota.used == 0 and quota._users[1000] == 0


@given(st.lists(st.tuples(st.integers(0, 2), st.integers(0, 4), st.integers(-3, 5)), max_size=200))
def test_the_accounts_add_up_and_the_reserve_stays(steps: list[tuple[int, int, int]]) -> None:
    quota = FdQuota(120, "here")
    held: dict[tuple[int, int], int] = {}
    for user, client, count in steps:
        key = user, 10 * user + client
        if count < 0:
            count = min(-count, held.get(key, 0))
            quota.give(*key, count)
            held[key] = held.get(key, 0) - count
            continue
        try:
            quota.take(*key, count)
        except Refused:
            continue
        held[key] = held.get(key, 0) + count
    assert quota.used == sum(held.values()) <= 120 - quota.reserve
    for user in range(3):
        assert quota._users[user] == sum(count for (owner, _), count in held.items() if owner == user)
