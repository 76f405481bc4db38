"""Scenario files: the one that ships is good, and every mistake is named with its line, its field and a way out."""

from pathlib import Path

import pytest

from skyshore.domain.node import Tier
from skyshore.domain.task import TaskKind
from skyshore.scenario import InvalidScenario, read_scenario
from skyshore.scenario.effects import NODE_EFFECT, CutLink, SlowNode, StartNode, StopNode
from skyshore.scenario.faults import effects_of, node_effects
from skyshore.scenario.workload import make_schedule

DEMO = Path(__file__).parents[2] / "scenarios" / "demo.toml"

GOOD = """\
name = "s"
duration_s = 10

[[nodes]]
id = "edge"
tier = "edge"
count = 3

[[nodes]]
id = "sky"
tier = "cloud"

[[links]]
nodes = "edge"
up = { rate_mbit_s = 10, delay_ms = 5 }

[[links]]
nodes = "edge-2"
shared = "mast"

[[workload.llm]]
rate_per_s = 1

[[faults]]
at_s = 3
kind = "crash"
node = "edge-2"
"""


@pytest.mark.parametrize("path", sorted(DEMO.parent.glob("**/*.toml")), ids=lambda path: path.stem)
def test_every_scenario_that_ships_is_valid(path):
    assert read_scenario(path.read_text(encoding="utf-8"), path.name).nodes


def test_a_fleet_has_numbered_nodes_and_the_last_link_that_fits():
    scenario = read_scenario(GOOD)
    assert scenario.nodes[0].ids == ("edge-1", "edge-2", "edge-3")
    assert scenario.nodes[1].tier is Tier.CLOUD
    assert scenario.link_of("edge-1").up.rate_mbit_s == 10
    assert scenario.link_of("edge-2").shared == "mast"
    assert scenario.link_of("sky") is None


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ('tier = "cloud"', 'tier = "sky"', "f.toml:11: nodes.1.tier: Input should be 'edge' or 'cloud', not 'sky'"),
        ("rate_per_s = 1", "rate = 1", "f.toml:22: workload.llm.0.rate: unknown field; did you mean 'rate_per_s'?"),
        ("rate_per_s = 1", "", "f.toml:21: workload.llm.0.rate_per_s: is missing; add it"),
        ("delay_ms = 5", "delay_ms = -5", "f.toml:15: links.0.up.delay_ms: Input should be greater than or equal to 0"),
        ("rate_mbit_s = 10", "rate_mbits = 10", "links.0.up.rate_mbits: unknown field; did you mean 'rate_mbit_s'?"),
        ("duration_s = 10", "duration_s = 0", "f.toml:2: duration_s: Input should be greater than 0, not 0"),
        ('node = "edge-2"', 'node = "edge-9"', "f.toml:24: faults.0: no node is called 'edge-9'; did you mean 'edge-"),
        ('nodes = "edge-2"', 'nodes = "skye"', "f.toml:17: links.1: no node is called 'skye'; did you mean 'sky'?"),
        ('kind = "crash"', 'kind = "outage"', "f.toml:24: faults.0.for_s: is missing; add it"),
        ('kind = "crash"', 'kind = "crush"', "f.toml:26: faults.0.kind: unknown kind 'crush'; did you mean 'crash'?"),
        ('kind = "crash"', "", "f.toml:24: faults.0.kind: is missing; there are crash, boot, outage, drift"),
        (
            'kind = "crash"',
            'kind = "boot"\nfor_s = 1',
            "f.toml:27: faults.0.for_s: unknown field; there are at_s",
        ),
        (
            'kind = "crash"',
            'kind = "drift"\nslowdown = 1',
            "f.toml:27: faults.0.slowdown: Input should be greater",
        ),
        ('kind = "crash"', 'kind = "outage"\nfor = 1', "f.toml:27: faults.0.for: unknown field; did you mean 'for_s'?"),
        (
            "rate_per_s = 1",
            'rate_per_s = 1\nservice_class = "interactiv"',
            "f.toml:21: workload.llm.0: no service class 'interactiv'; did you mean 'interactive'?",
        ),
        ('id = "sky"', 'id = "edge-1"', "two nodes are called 'edge-1'"),
        ("[[workload.llm]]\nrate_per_s = 1", "", "f.toml:1: workload: is missing"),
        ("rate_per_s = 1", "rate_per_s = ", "f.toml:22: Invalid value"),
        (
            "rate_per_s = 1",
            'rate_per_s = "fast"',
            "f.toml:22: workload.llm.0.rate_per_s: Input should be a valid number",
        ),
    ],
)
def test_a_mistake_names_line_field_and_fix(old, new, said):
    assert GOOD.count(old) == 1
    with pytest.raises(InvalidScenario) as raised:
        read_scenario(GOOD.replace(old, new), "f.toml")
    assert said in raised.value.message


def test_every_mistake_is_reported_at_once():
    with pytest.raises(InvalidScenario) as raised:
        read_scenario(GOOD.replace("count = 3", "count = 0").replace('kind = "crash"', 'kind = "flood"'), "f.toml")
    assert [line.split(": ")[1] for line in raised.value.message.splitlines()] == ["nodes.0.count", "faults.0.kind"]


def test_requests_of_a_source_may_have_deadlines_of_their_own():
    source = 'rate_per_s = 20\nservice_class = "standard"\ndeadline_range_s = [2.0, 6.0]'
    schedule = make_schedule(read_scenario(GOOD.replace("rate_per_s = 1", source)))
    deadlines_s = [arrival.deadline_s for arrival in schedule.arrivals]
    assert 2.0 <= min(deadlines_s) < 2.5
    assert 5.5 < max(deadlines_s) <= 6.0
    with pytest.raises(InvalidScenario, match=r"workload\.llm\.0: deadline_range_s must be the shortest"):
        read_scenario(GOOD.replace("rate_per_s = 1", source.replace("2.0, 6.0", "6.0, 2.0")))


def test_cameras_may_send_clips_to_be_named():
    cameras = '\n[[workload.cameras]]\nkind = "video.classify"\nsegment_s = 2.0\n'
    schedule = make_schedule(read_scenario(GOOD + cameras))
    kinds = {arrival.kind for arrival in schedule.arrivals}
    assert kinds == {TaskKind.LLM, TaskKind.VIDEO_CLASSIFY}
    with pytest.raises(InvalidScenario, match=r"workload\.cameras\.0\.kind"):
        read_scenario(GOOD + cameras.replace("video.classify", "llm"))


@pytest.mark.parametrize(
    ("fields", "effects"),
    [
        ('kind = "crash"', [(3.0, StopNode())]),
        ('kind = "crash"\nfor_s = 2', [(3.0, StopNode()), (5.0, StartNode())]),
        ('kind = "boot"', [(3.0, StartNode())]),
        ('kind = "outage"\nfor_s = 2', [(3.0, CutLink(for_s=2))]),
        ('kind = "drift"\nslowdown = 4', [(3.0, SlowNode(slowdown=4))]),
        ('kind = "drift"\nslowdown = 4\nfor_s = 2', [(3.0, SlowNode(slowdown=4)), (5.0, SlowNode(slowdown=1))]),
    ],
)
def test_a_fault_is_a_list_of_timed_effects(fields, effects):
    (fault,) = read_scenario(GOOD.replace('kind = "crash"', fields)).faults
    assert effects_of(fault) == [(at_s, "edge-2", effect) for at_s, effect in effects]


def test_effects_on_nodes_are_ordered_by_time_and_at_one_time_as_in_the_file():
    more = "".join(
        f'[[faults]]\nat_s = {at_s}\nnode = "edge-1"\n{fields}\n'
        for at_s, fields in [(1, 'kind = "boot"'), (3, 'kind = "boot"'), (2, 'kind = "outage"\nfor_s = 1')]
    )
    found = node_effects(read_scenario(GOOD + more).faults)
    assert found == [(1.0, "edge-1", StartNode()), (3.0, "edge-2", StopNode()), (3.0, "edge-1", StartNode())]


def test_an_effect_is_read_back_from_its_json():
    for effect in (StopNode(), StartNode(), SlowNode(slowdown=2.5)):
        assert NODE_EFFECT.validate_json(effect.model_dump_json()) == effect
