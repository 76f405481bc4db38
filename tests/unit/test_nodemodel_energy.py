"""The ledger's promise: the parts add up to the meter."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from skyshore.nodemodel.energy import EnergyLedger

steps = st.lists(
    st.tuples(
        st.floats(0, 5),  # seconds that pass
        st.floats(0, 200),  # watts meanwhile
        st.sampled_from(["open:a", "open:b", "close", "close", "look"]),
        st.integers(0, 100),
    ),
    max_size=60,
)


@given(steps)
@settings(max_examples=200, deadline=None)
def test_charges_and_unassigned_add_up_to_the_meter(script):
    ledger = EnergyLedger(20.0, {"a": 1, "b": 3}, 0.0, 1000.0)
    now, joules, open_, charged = 0.0, 1000.0, [], 0.0
    for seconds, watts, what, pick in script:
        now, joules = now + seconds, joules + seconds * watts
        if what.startswith("open"):
            open_.append(ledger.open(now, joules, what[-1]))
        elif what == "close" and open_:
            charge = ledger.close(now, joules, open_.pop(pick % len(open_)))
            assert min(charge) >= -1e-9
            charged += sum(charge)
        else:
            ledger.observe(now, joules)
    while open_:
        charged += sum(ledger.close(now, joules, open_.pop()))
    assert charged + ledger.unassigned_joules == pytest.approx(joules - 1000.0, abs=1e-6)


def test_idle_and_inference_are_told_apart_and_split_evenly():
    ledger = EnergyLedger(10.0, {"llm": 8}, 0.0, 0.0)
    first = ledger.open(0.0, 0.0, "llm")
    second = ledger.open(1.0, 50.0, "llm")  # first alone: 10 idle, 40 inference
    assert ledger.close(2.0, 110.0, first) == pytest.approx((40 + 25, 10 + 5))  # then 60 J shared by two
    assert ledger.close(3.0, 120.0, second) == pytest.approx((25 + 0, 5 + 10))


def test_who_waits_for_a_slot_does_not_pay_yet():
    ledger = EnergyLedger(0.0, {"llm": 1}, 0.0, 0.0)
    served, waiting = ledger.open(0.0, 0.0, "llm"), ledger.open(0.0, 0.0, "llm")
    assert ledger.close(1.0, 30.0, served).inference_joules == pytest.approx(30)
    assert ledger.close(2.0, 50.0, waiting).inference_joules == pytest.approx(20)


def test_power_with_nobody_at_work_is_kept_apart():
    ledger = EnergyLedger(10.0, {"llm": 1}, 0.0, 0.0)
    task = ledger.open(5.0, 50.0, "llm")
    assert sum(ledger.close(6.0, 80.0, task)) == pytest.approx(30)
    assert ledger.unassigned_joules == pytest.approx(50)


def test_a_meter_that_stands_still_charges_nothing_and_loses_nothing():
    ledger = EnergyLedger(10.0, {"llm": 2}, 0.0, 0.0)
    first, second = ledger.open(0.0, 0.0, "llm"), ledger.open(0.0, 0.0, "llm")
    assert sum(ledger.close(1.0, 0.0, first)) == 0.0
    assert sum(ledger.close(2.0, 40.0, second)) == pytest.approx(40)
