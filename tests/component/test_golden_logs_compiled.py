"""The live core in machine code gives the recorded decisions too."""

import pytest

from skyshore.policies.kernel_policy import KernelPolicy
from skyshore.policies.registry import POLICIES
from skyshore.scheduling.actions import Dispatch
from skyshore.scheduling.core import SchedulerCore
from skyshore.scheduling.log import decode_log, encode_dispatch
from tests.replay.record import GOLDEN

pytest.importorskip("numba", reason="numba is not installed: pip install 'skyshore[sim]'")

CHOSEN = ("least_loaded", "cs_ucb", "cs_ucb.slotted", "skyshore", "linucb")
"""Each kind of policy once; each compiles for some seconds on its first run."""


@pytest.mark.timeout(900)
@pytest.mark.parametrize("policy", CHOSEN)
def test_machine_code_gives_the_recorded_decisions(policy):
    assert policy in POLICIES
    settings, events = decode_log((GOLDEN / f"{policy}.events.jsonl").read_text(encoding="utf-8").splitlines())
    core = SchedulerCore(settings)
    core.use_compiled(many_arms=1)
    actions = [action for event in events for action in core.handle(event)]
    found = [encode_dispatch(action) for action in actions if isinstance(action, Dispatch)]
    assert found == (GOLDEN / f"{policy}.decisions.jsonl").read_text(encoding="utf-8").splitlines()
    assert core.fleet.arrays, "the records were arrays"
    if isinstance(core.policy, KernelPolicy):
        assert core.policy.arrays
