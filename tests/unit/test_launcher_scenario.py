"""What `skyshore up SCENARIO` starts, before anything is started."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from cli.launcher.process import ProcessSpec
from cli.launcher.system_plan import SystemOptions, SystemPlan, plan_system
from services.links.app import read_links
from skyshore.domain.errors import NotFound
from skyshore.scenario import InvalidScenario, read_scenario
from skyshore.scenario.links import link_settings

SCENARIO = """
name = "small"
duration_s = 10
seed = 5
policy = "round_robin"
[[nodes]]
id = "edge"
tier = "edge"
count = 2
profile = "own.json"
time_scale = 4
[[nodes]]
id = "cloud"
tier = "cloud"
engine = "onnx"
models = ["smollm2-135m:int4"]
threads = 2
slots = 3
slowdown = 2
[[nodes]]
id = "near"
tier = "edge"
[[links]]
nodes = "edge"
up = { rate_mbit_s = 8, delay_ms = 4 }
shared = "mast"
joules_per_mb = 3
[[links]]
nodes = "cloud"
down = { delay_ms = 20, loss = 0.01 }
[[classes]]
name = "fast"
deadline_s = 1.5
min_quality = 0.5
[[workload.llm]]
rate_per_s = 1
[[faults]]
at_s = 2
kind = "outage"
node = "edge-2"
for_s = 1
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    (tmp_path / "own.json").write_text("{}")
    path = tmp_path / "small.toml"
    path.write_text(SCENARIO)
    return path


def planned(file: Path, **options: object) -> tuple[SystemPlan, dict[str, ProcessSpec]]:
    state = file.parent / "state"
    system = SystemOptions(state, file, any_ports=True, redis_url="redis://127.0.0.1:1/0", **options)  # type: ignore[arg-type]
    plan = plan_system(system, {"smollm2-135m"})
    return plan, {spec.name: spec for stage in plan.stages for spec in stage}


def test_every_node_with_a_link_is_found_at_its_relay_and_the_others_where_they_listen(file: Path) -> None:
    plan, specs = planned(file)
    links = {link.name: link for link in read_links(Path(specs["links"].env["SKYSHORE_LINKS_FILE"]))}
    assert set(links) == {"edge-1", "edge-2", "cloud"}
    for name, link in links.items():
        env = specs[name].env
        assert (link.target, link.listen) == (env["SKYSHORE_NODE_LISTEN"], env["SKYSHORE_NODE_ADVERTISE"])
    assert specs["near"].env["SKYSHORE_NODE_ADVERTISE"] == ""
    assert plan.links_url == specs["links"].health.address.removesuffix("/health")
    order = [spec.name for stage in plan.stages for spec in stage]
    assert order.index("links") < order.index("edge-1") < order.index("gateway")
    assert specs["links"].env["SKYSHORE_REDIS_URL"], "measured links are told to the scheduler"


def test_a_link_is_what_the_simulator_takes_it_for(file: Path) -> None:
    _, specs = planned(file)
    started = {link.name: link.to_domain() for link in read_links(Path(specs["links"].env["SKYSHORE_LINKS_FILE"]))}
    scenario = read_scenario(SCENARIO)
    assert started == {node_id: link_settings(scenario, node_id) for node_id in started}
    assert started["edge-1"].up.rate_bytes_per_s == 1e6
    assert started["edge-1"].joules_per_byte == 3e-6
    (outage,) = started["edge-1"].up.outages
    assert (outage.start_s, outage.end_s) == (2.0, 3.0), "it shares the uplink that fails"
    assert started["edge-1"].up.outages == started["edge-2"].up.outages
    assert started["cloud"].down.outages == ()


def test_nodes_classes_policy_and_seed_are_the_scenarios(file: Path) -> None:
    _, specs = planned(file)
    edge, cloud = specs["edge-1"].env, specs["cloud"].env
    assert edge["SKYSHORE_NODE_ENGINE"] == "emulated"
    assert edge["SKYSHORE_NODE_PROFILE"] == str(file.parent / "own.json")
    assert edge["SKYSHORE_NODE_TIME_SCALE"] == "4.0"
    assert (cloud["SKYSHORE_NODE_ENGINE"], cloud["SKYSHORE_NODE_SLOTS"]) == ("onnx", "3")
    assert (cloud["SKYSHORE_NODE_THREADS"], cloud["SKYSHORE_NODE_SLOWDOWN"]) == ("2", "2.0")
    scheduler = specs["scheduler"].env
    assert (scheduler["SKYSHORE_SCHEDULER_POLICY"], scheduler["SKYSHORE_SCHEDULER_SEED"]) == ("round_robin", "5")
    (own,) = json.loads(specs["gateway"].env["SKYSHORE_GATEWAY_CLASSES"])
    assert own == {"name": "fast", "deadline_s": 1.5, "min_quality": 0.5, "priority": 0}
    _, other = planned(file, policy="cs_ucb", seed=9)
    assert other["scheduler"].env["SKYSHORE_SCHEDULER_POLICY"] == "cs_ucb"
    assert other["scheduler"].env["SKYSHORE_SCHEDULER_SEED"] == "9"


def test_emulating_all_needs_no_model(file: Path) -> None:
    _, specs = planned(file, emulated=True)
    assert specs["cloud"].env["SKYSHORE_NODE_ENGINE"] == "emulated"


def test_without_links_no_emulator_is_started(file: Path, tmp_path: Path) -> None:
    bare = tmp_path / "bare.toml"
    bare.write_text(
        'name = "bare"\nduration_s = 1\n[[nodes]]\nid = "a"\ntier = "edge"\n[[workload.llm]]\nrate_per_s = 1\n'
    )
    plan, specs = planned(bare)
    assert "links" not in specs
    assert plan.links_url == ""


def test_a_scenario_that_is_not_there_or_wrong_is_told(file: Path, tmp_path: Path) -> None:
    with pytest.raises(NotFound, match=r"cannot read .*none\.toml: No such file"):
        planned(tmp_path / "none.toml")
    (tmp_path / "clip.toml").write_bytes(b"\x00\xff\xfe")
    with pytest.raises(NotFound, match="it is not a text file"):
        planned(tmp_path / "clip.toml")
    file.write_text(SCENARIO.replace("tier = ", "tear = "))
    with pytest.raises(InvalidScenario, match="did you mean 'tier'"):
        planned(file)
