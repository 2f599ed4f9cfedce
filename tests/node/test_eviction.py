"""Who makes room: a crowd of one network crowds out only itself."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dllama_worker.node.eviction import first_to_go, network_of

Waiting = tuple[str, bool, int]


def gone(*waiting: Waiting) -> Waiting:
    return first_to_go(waiting, lambda one: one[0], lambda one: one[1])


def test_the_oldest_of_the_network_with_most_places_goes() -> None:
    assert gone(("a", False, 0), ("b", False, 1), ("b", False, 2)) == ("b", False, 1)


def test_who_has_begun_stays_longer_than_who_is_silent() -> None:
    assert gone(("a", True, 0), ("a", False, 1)) == ("a", False, 1)
    assert gone(("a", True, 0), ("b", False, 1)) == ("b", False, 1)


def test_who_has_begun_goes_where_all_have() -> None:
    assert gone(("a", True, 0), ("a", True, 1)) == ("a", True, 0)


def test_a_crowd_that_has_begun_does_not_outlast_a_silent_other() -> None:
    assert gone(("b", False, 0), ("a", True, 1), ("a", True, 2)) == ("a", True, 1)


_WAITING = st.lists(st.tuples(st.sampled_from("abc"), st.booleans(), st.integers()), min_size=1)


@given(_WAITING)
def test_no_network_gives_up_a_place_that_has_fewer_than_another(waiting: list[Waiting]) -> None:
    places = Counter(host for host, _, _ in waiting)
    assert places[gone(*waiting)[0]] == max(places.values())


@pytest.mark.parametrize(
    ("host", "network"),
    [
        ("10.0.0.1", "10.0.0.1"),
        ("::ffff:10.0.0.1", "10.0.0.1"),
        ("2001:db8::1", "2001:db8::/64"),
        ("2001:db8::ffff:1", "2001:db8::/64"),
        ("2001:db8:0:1::1", "2001:db8:0:1::/64"),
        ("no:address", "no:address"),
    ],
)
def test_a_network_is_what_one_host_can_hold(host: str, network: str) -> None:
    assert network_of(host) == network
