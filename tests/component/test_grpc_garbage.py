"""Malformed messages to every method of a process: INVALID_ARGUMENT, one log line, and it serves on."""

import math
import random
from typing import Any

import grpc
import pytest
from structlog.testing import capture_logs

from services.scheduler.servicer import SchedulerServicer
from skyshore.domain.errors import InvalidTask
from skyshore.runtime.serve import GrpcService, grpc_server
from skyshore.v1 import scheduler_service_pb2, scheduler_service_pb2_grpc

SERVICE = scheduler_service_pb2.DESCRIPTOR.services_by_name["SchedulerService"]
pytestmark = pytest.mark.timeout(60)


class Loop:
    """Uses what it is given as the real one does: as numbers."""

    policy = "x"

    async def place(self, task: Any, profile: Any, attempt: int, avoid: Any) -> Any:
        raise InvalidTask(f"no arm for {int(task.deadline_s)} s, {int(profile.expected_output_tokens)} tokens")

    async def report(self, outcome: Any) -> None:
        int(outcome.ttft_s or 0.0)

    async def set_policy(self, name: str) -> None:
        raise InvalidTask(name)


def fill(message: Any, dice: random.Random, depth: int = 0) -> Any:
    """Random values of each field's type, with many at the edges."""
    for field in message.DESCRIPTOR.fields:
        if dice.random() < 0.3:
            continue
        if field.message_type is not None:
            if depth < 3 and not field.message_type.GetOptions().map_entry:
                inner = getattr(message, field.name)
                fill(inner.add() if field.is_repeated else inner, dice, depth + 1)
            continue
        number: Any = dice.choice([0, 1, 99, 2**31 - 1])
        edges = {
            field.CPPTYPE_DOUBLE: dice.choice([math.nan, math.inf, -1.0, 0.0, 1e300]),
            field.CPPTYPE_FLOAT: dice.choice([math.nan, math.inf, -1.0]),
            field.CPPTYPE_STRING: dice.choice(["", "x", "\0", "é" * 999]),
            field.CPPTYPE_BOOL: True,
        }
        value = edges.get(field.cpp_type, number)
        if field.type == field.TYPE_BYTES:
            value = b"\xff"
        if field.is_repeated:
            getattr(message, field.name).append(value)
        else:
            setattr(message, field.name, value)
    return message


async def test_random_messages_and_bytes_are_the_callers_fault() -> None:
    dice, seen = random.Random(5), set()
    service = GrpcService(
        SERVICE.full_name,
        scheduler_service_pb2_grpc.add_SchedulerServiceServicer_to_server,
        SchedulerServicer(Loop()),  # type: ignore[arg-type]
    )
    async with grpc_server([service], "127.0.0.1:0") as server, grpc.aio.insecure_channel(server.address) as channel:
        with capture_logs() as logs:
            calls = 0
            for name in ("Place", "ReportOutcome", "SetPolicy"):
                kind = getattr(scheduler_service_pb2, SERVICE.methods_by_name[name].input_type.name)
                call = channel.unary_unary(f"/{SERVICE.full_name}/{name}")
                payloads = [fill(kind(), dice).SerializeToString() for _ in range(100)] if name != "SetPolicy" else []
                for payload in [*payloads, b"\xff\xff\xff", b"\x0a\xff"]:
                    calls += 1
                    try:
                        await call(payload)
                    except grpc.aio.AioRpcError as error:
                        seen.add(error.code())
        assert seen == {grpc.StatusCode.INVALID_ARGUMENT}
        assert len([line for line in logs if line["event"] == "malformed message"]) <= calls
        assert not [line for line in logs if line.get("exc_info")]
