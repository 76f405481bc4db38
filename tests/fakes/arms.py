"""Arms, contexts and feedback made by hand, and any of them at random, for tests of single policies."""

import numpy as np
from hypothesis import strategies as st

from skyshore.domain.task import TaskKind
from skyshore.policies.protocol import Arms, ArmTable, Context, Feedback
from tests.fakes.small_fleet import LLM_PROFILE, llm_task, outcome


def arms_of(  # one row an arm; columns by name
    number: int, *, table: ArmTable | None = None, rows: list[int] | None = None, **columns: object
) -> Arms:
    table = table or ArmTable(
        kind=TaskKind.LLM,
        arm_ids=tuple(f"n{i}/m" for i in range(number)),
        node_ids=tuple(f"n{i}" for i in range(number)),
        node=np.arange(number),
        is_cloud=np.arange(number) % 2 == 1,
        quality=np.full(number, 0.6),
        slots=np.ones(number),
    )
    picked = np.arange(number) if rows is None else np.array(rows)
    values = {
        "quality": 0.6,
        "slots": 1.0,
        "transmission_s": 0.0,
        "queue_s": 0.0,
        "service_s": 1.0,
        "joules": 10.0,
        "up_bytes": 100.0,
        "load": 0.0,
        "capacity": 8.0,
        "kv_used": 0.0,
        "up_bytes_per_s": np.inf,
        "reserved_bytes_per_s": 0.0,
    } | columns
    filled = {name: np.broadcast_to(np.asarray(value, float), (len(picked),)).copy() for name, value in values.items()}
    latency_s = filled["transmission_s"] + filled["queue_s"] + filled["service_s"]
    is_cloud = table.is_cloud[picked]
    return Arms(table=table, rows=picked, node=table.node[picked], is_cloud=is_cloud, latency_s=latency_s, **filled)


def context(at_s: float = 1.0, **changes: object) -> Context:
    return Context(at_s, llm_task(**changes), LLM_PROFILE)


def feedback(ctx: Context, arms: Arms, index: int, reward: float = 0.0, **changes: object) -> Feedback:
    arm = arms.estimate(index)
    return Feedback(ctx.now_s + 1, ctx, arm, outcome(ctx.task.task_id, arm.arm_id, arm.node_id, **changes), reward)


positive = st.floats(0.01, 20.0)


@st.composite
def worlds(draw: st.DrawFn) -> Arms:
    number = draw(st.integers(1, 12))

    def column(values: st.SearchStrategy[float]) -> np.ndarray:
        return np.array(draw(st.lists(values, min_size=number, max_size=number)))

    capacity = column(st.integers(1, 9).map(float))
    return arms_of(
        number,
        quality=column(st.floats(0.1, 1.0)),
        service_s=column(positive),
        queue_s=column(st.floats(0.0, 20.0)),
        joules=column(st.floats(0.0, 500.0)),
        slots=column(st.integers(1, 4).map(float)),
        capacity=capacity,
        load=np.floor(capacity * column(st.floats(0.0, 0.99))),
        kv_used=column(st.floats(0.0, 1.0)),
    )
