"""The simulated fleet: hand-checked times, failures, books that balance, and runs that repeat to the bit."""

from collections import Counter
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from simulator.records import ATTEMPTS
from simulator.requests import ANSWER_CHARACTERS_PER_TOKEN, CHARACTERS_PER_TOKEN
from simulator.simulation import SimulationSettings
from skyshore.domain.node import Tier
from skyshore.domain.outcome import OutcomeStatus
from skyshore.domain.task import TaskKind
from skyshore.links.framing import FRAME_BYTES, REPLY_BYTES, REQUEST_BYTES, TOKEN_BYTES
from skyshore.rules.records import get
from skyshore.workload.arrival import Arrival
from tests.fakes.simulated import LINK, LLM, PROFILE, VIDEO, chat, clip, one_slot, outcomes_of, plan, play, simulation


def test_one_chat_takes_what_a_calculator_says():
    (outcome,) = play(chat())
    up = (REQUEST_BYTES + 100 * CHARACTERS_PER_TOKEN) / 1e6 + 0.01
    prefill, decode = 0.02 + 100 * 1e-4, 9 * 0.021
    down = (REPLY_BYTES + 10 * (TOKEN_BYTES + ANSWER_CHARACTERS_PER_TOKEN)) / 1e6 + 0.01
    assert outcome.status is OutcomeStatus.OK
    assert outcome.latency_s == pytest.approx(0.003 + up + prefill + decode + down, abs=0.002)
    assert outcome.ttft_s == pytest.approx(0.003 + up + prefill + 0.01, abs=0.002)
    assert outcome.worker.prefill_s == pytest.approx(prefill)
    assert outcome.worker.compute_s == pytest.approx(decode)
    assert outcome.worker.inference_joules == pytest.approx((prefill + decode) * 100)
    assert outcome.worker.idle_joules == pytest.approx((prefill + decode) * 10)
    assert outcome.transmission_joules == pytest.approx((outcome.up_bytes + outcome.down_bytes) * 1e-6)


def test_work_on_frames_overlaps_their_upload():
    # 20 frames of 10 kB at 1 MB/s arrive over 0.2 s; each takes 10 ms: the node keeps pace with the link.
    (outcome,) = play(clip())
    assert outcome.latency_s == pytest.approx(0.003 + 0.01 + 0.2 + 0.01 + 0.01 + 0.002, abs=0.01)
    slow = replace(PROFILE, video=(replace(VIDEO, frame_s=0.05),))
    (outcome,) = play(clip(), plans=[plan(profile=slow)])
    assert outcome.latency_s == pytest.approx(0.003 + 0.01 + 20 * 0.05 + 0.01 + 0.002, abs=0.01)


def test_of_a_clip_to_be_classified_a_sample_is_sent_and_worked_on_as_the_gateway_does():
    speed = replace(VIDEO, kind=TaskKind.VIDEO_CLASSIFY, frame_s=0.05, bytes_per_frame=1000.0)
    arrival = Arrival(0.0, "c", TaskKind.VIDEO_CLASSIFY, frames=200, fps=10.0)
    (outcome,) = play(arrival, plans=[plan(profile=replace(PROFILE, video=(speed,)))])
    assert outcome.up_bytes == REQUEST_BYTES + 8 * (FRAME_BYTES + 1000)
    assert outcome.worker.compute_s == pytest.approx(8 * 0.05)


def test_a_deadline_ends_the_task_and_frees_the_slot():
    first, second = sorted(
        play(chat(output=1000, deadline=1.0), chat(0.1, "s", output=5), plans=[plan(profile=one_slot())]),
        key=lambda outcome: outcome.task_id,
    )
    assert (first.status, first.latency_s) == (OutcomeStatus.DEADLINE_EXCEEDED, 1.0)
    assert second.status is OutcomeStatus.OK
    assert 1.0 - 0.114 <= second.worker.queue_s <= 1.0 - 0.113 + 0.021, "until the iteration under way has ended"


def test_a_crash_moves_what_has_no_token_yet_and_fails_what_has():
    long, short = chat(0.0, "begun", output=400), chat(0.95, "fresh", prompt=4000, output=2)
    run = simulation(plan("shore"), plan("sky", Tier.CLOUD))
    where: dict[str, str] = {}

    def crash_the_node_of_the_fresh_task() -> None:
        where.update({task: node for node in ("shore", "sky") for task in run.tasks_on(node)})
        assert where["begun"] != where["fresh"], "least loaded spreads two tasks over two nodes"
        run.crash(where["fresh"])

    run.at(1.0, crash_the_node_of_the_fresh_task)
    outcomes = {outcome.task_id: outcome for outcome in outcomes_of(run, [long, short])}
    assert outcomes["fresh"].status is OutcomeStatus.OK
    assert outcomes["fresh"].node_id == where["begun"], "it went to the node that is left"
    assert outcomes["begun"].status is OutcomeStatus.OK

    again = simulation(plan("shore"), plan("sky", Tier.CLOUD))
    again.at(1.0, lambda: again.crash("shore" if "begun" in again.tasks_on("shore") else "sky"))
    (outcome,) = outcomes_of(again, [long])
    assert outcome.status is OutcomeStatus.FAILED, "its caller has seen tokens; nobody can take over"


def test_a_node_that_comes_back_is_used_again_and_a_lost_one_is_not():
    run = simulation(plan())
    run.at(1.0, lambda: run.crash("n"))
    run.at(10.0, lambda: run.boot("n"))
    outcomes = {o.task_id: o for o in outcomes_of(run, [chat(0.0, "a"), chat(5.0, "b"), chat(11.0, "c")])}
    assert outcomes["a"].status is OutcomeStatus.OK
    assert outcomes["b"].status is OutcomeStatus.FAILED
    assert outcomes["c"].status is OutcomeStatus.OK


def test_a_live_node_is_not_started_and_a_dead_one_is_not_stopped():
    plain, run = simulation(plan()), simulation(plan())
    run.at(0.1, lambda: run.boot("n"))
    assert outcomes_of(run, [chat()]) == outcomes_of(plain, [chat()])
    run = simulation(plan())
    for at_s in (0.1, 0.2):
        run.at(at_s, lambda: run.crash("n"))
    (outcome,) = outcomes_of(run, [chat()])
    assert outcome.status is OutcomeStatus.FAILED


def test_a_silent_node_may_be_chosen_until_its_lease_runs_out():
    tasks = [chat(0.0, "a"), chat(3.5, "b"), chat(4.5, "c")]
    run = simulation(plan(), settings=SimulationSettings(attempts=1))
    run.at(1.0, lambda: run.crash("n"))
    decided = {o.task_id: o.arm_id for o in outcomes_of(run, tasks)}
    assert decided == {"a": "n/m", "b": "n/m", "c": ""}


def test_a_task_tries_no_more_nodes_than_it_may():
    names = ("a", "bb", "ccc", "dddd")
    run = simulation(*map(plan, names))
    for name in names:
        run.at(0.5, lambda name=name: run.crash(name))
    (outcome,) = outcomes_of(run, [chat(1.0)])
    assert outcome.status is OutcomeStatus.FAILED
    assert run.clock.decided == 0, "all decisions were taken back"
    lease_s = SimulationSettings().lease_s
    assert run.now_s < 1.0 + lease_s
    with pytest.raises(ValueError, match=f"at most {ATTEMPTS}"):
        simulation(plan(), settings=SimulationSettings(attempts=ATTEMPTS + 1))


def test_nodes_of_one_machine_hinder_each_other():
    both = [plan("a", host="box"), plan("bb", host="box")]
    alone, _ = (
        outcome.worker.compute_s for outcome in outcomes_of(simulation(*both), [chat(0.0, "r"), chat(0.0, "s")])
    )
    shared = [
        outcome.worker.compute_s
        for outcome in outcomes_of(simulation(*both, contention=0.5), [chat(0.0, "r"), chat(0.0, "s")])
    ]
    assert shared == pytest.approx([1.5 * alone] * 2, rel=0.12), "the one that is done last ends alone"
    (one,) = outcomes_of(simulation(*both, contention=0.5), [chat()])
    assert one.worker.compute_s == pytest.approx(alone)


def test_a_full_node_refuses_and_the_task_goes_elsewhere():
    arrivals = [chat(0.001 * i, f"r{i}", output=50) for i in range(6)]
    outcomes = play(*arrivals, plans=[plan("a", profile=one_slot(0)), plan("bb", profile=one_slot(0))])
    statuses = Counter(outcome.status for outcome in outcomes)
    assert statuses == {OutcomeStatus.OK: 2, OutcomeStatus.REJECTED: 4}


def test_a_slot_gathers_arrivals_and_places_them_at_its_end():
    at_once = play(chat(0.11), chat(0.14, "s"))
    gathered = play(chat(0.11), chat(0.14, "s"), policy="cs_ucb.slotted")
    waits = [late.latency_s - soon.latency_s for late, soon in zip(gathered, at_once, strict=True)]
    assert waits == pytest.approx([0.04, 0.01], abs=0.025), "until 0.15 s, and not quite apart from each other there"
    assert min(waits) > 0


def test_a_deadline_within_the_slot_releases_the_slot():
    (outcome,) = play(chat(0.11, deadline=0.02), policy="cs_ucb.slotted")
    assert (outcome.status, outcome.arm_id) == (OutcomeStatus.DEADLINE_EXCEEDED, "")
    run = simulation(plan(), policy="cs_ucb.slotted")
    outcomes_of(run, [chat(0.11, deadline=0.02), chat(0.3, "s")])
    assert not any(get(attempt, "in_flight") for attempt in run.run_records.attempts)
    assert (get(run.view.nodes[0], "own"), get(run.view.nodes[0], "backlog_s")) == (0.0, 0.0)


def test_a_run_ends_with_its_last_task_even_if_nobody_took_it():
    assert play() == []
    run = simulation(plan(profile=replace(PROFILE, video=())))
    (outcome,) = outcomes_of(run, [clip(at=2.0)])
    assert (outcome.status, outcome.arm_id) == (OutcomeStatus.FAILED, "")
    assert run.now_s < 3.0


def test_a_run_can_be_stopped():
    run = simulation(plan())
    run.at(5.0, run.stop)
    outcomes = outcomes_of(run, [chat(float(at), f"r{at}") for at in range(20)])
    assert len(outcomes) == 5
    assert run.now_s == 5.0


def test_calls_of_one_time_are_made_in_the_order_they_were_planned():
    run, made = simulation(plan()), []
    for name in "abc":
        run.at(0.5, lambda name=name: made.append(name))
    run.at(0.2, lambda: run.at(0.1, lambda: made.append(run.now_s)))
    outcomes_of(run, [chat(1.0)])
    assert made == [0.2, "a", "b", "c"], "a time that has passed means now"


def test_there_is_room_for_any_number_of_tasks_at_once():
    crowd = [chat(0.001 * i, f"r{i}", output=50) for i in range(1500)]
    roomy = replace(PROFILE, llm=(replace(LLM, queue=5000, kv_tokens=10**9),))
    outcomes = play(*crowd, plans=[plan(profile=roomy)])
    assert Counter(outcome.task_id for outcome in outcomes) == Counter(arrival.request_id for arrival in crowd)


mixes = st.lists(
    st.tuples(st.floats(0, 20), st.booleans(), st.integers(1, 400), st.integers(1, 60), st.floats(0.2, 20)),
    min_size=1,
    max_size=40,
)


def arrivals_of(mix) -> list[Arrival]:
    made = []
    for i, (at, is_chat, prompt, output, deadline) in enumerate(sorted(mix)):
        arrival = chat(at, f"r{i}", prompt, output, deadline) if is_chat else clip(at, f"r{i}", frames=output)
        made.append(arrival)
    return made


@given(
    mixes,
    st.sampled_from(["least_loaded", "random", "cs_ucb", "edge_only", "cs_ucb.slotted", "cdio"]),
    st.lists(st.floats(0, 20), max_size=3),
)
@settings(max_examples=40, deadline=None)
def test_every_task_ends_once_and_joules_add_up_whatever_happens(mix, policy, crashes):
    run, alive = simulation(plan("a"), plan("sky", Tier.CLOUD), policy=policy), [True]

    def turn() -> None:
        (run.crash if alive[0] else run.boot)("a")
        alive[0] = not alive[0]

    for at in crashes:
        run.at(at, turn)
    arrivals = arrivals_of(mix)
    outcomes = outcomes_of(run, arrivals)
    assert Counter(o.task_id for o in outcomes) == Counter(a.request_id for a in arrivals)
    assert run.clock.open_tasks == 0
    charged = sum(o.worker.inference_joules + o.worker.idle_joules for o in outcomes if o.node_id == "sky")
    drawn = run.joules()["sky"]
    assert charged <= drawn + 1e-6
    assert drawn >= 10.0 * run.now_s - 1e-6


@given(mixes, st.sampled_from(["least_loaded", "random", "cs_ucb", "cs_ucb.slotted"]))
@settings(max_examples=15, deadline=None)
def test_the_same_seed_gives_the_same_run_to_the_bit(mix, policy):
    jittery = replace(LINK, jitter_s=0.005, loss=0.01)
    runs = [simulation(plan("a", direction=jittery), plan("sky", Tier.CLOUD), policy=policy, seed=3) for _ in range(2)]
    outcomes = [outcomes_of(run, arrivals_of(mix)) for run in runs]
    assert outcomes[0] == outcomes[1]
    assert runs[0].digest == runs[1].digest
