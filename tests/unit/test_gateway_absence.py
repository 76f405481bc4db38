"""When calls on a silent node are given up."""

from gateway.absence import GRACE_S, Absences

NODES = {"edge:1", "cloud:1"}


def test_a_busy_node_without_a_lease_is_given_up_after_the_grace_and_not_before() -> None:
    absences = Absences()
    assert absences.gone(0.0, NODES, NODES) == []
    assert absences.gone(10.0, {"edge:1"}, NODES) == []
    assert absences.gone(10.0 + GRACE_S - 0.1, {"edge:1"}, NODES) == []
    assert absences.gone(10.0 + GRACE_S, {"edge:1"}, NODES) == ["cloud:1"]


def test_an_idle_node_may_be_away_as_long_as_it_likes() -> None:
    absences = Absences()
    absences.gone(0.0, {"edge:1"}, set())
    assert absences.gone(100.0, {"edge:1"}, set()) == []
    assert absences.gone(100.5, {"edge:1"}, {"cloud:1"}) == []


def test_a_lease_that_comes_back_starts_the_count_again() -> None:
    absences = Absences()
    absences.gone(0.0, {"edge:1"}, NODES)
    absences.gone(3.0, NODES, NODES)
    assert absences.gone(3.5, {"edge:1"}, NODES) == []
    assert absences.gone(3.5 + GRACE_S - 0.1, {"edge:1"}, NODES) == []


def test_a_store_that_was_away_proves_nothing() -> None:
    absences = Absences()
    absences.gone(0.0, {"edge:1"}, NODES)
    absences.store_away()
    assert absences.gone(60.0, set(), NODES) == []  # it is back, and no node has had time to register again
    assert absences.gone(61.0, NODES, NODES) == []
