"""Lets a large fleet run on machine code, made in a thread while decisions go on in plain Python."""

from __future__ import annotations

import asyncio

import structlog

from skyshore.rules.kernel import can_compile
from skyshore.scheduling.compile import compile_kernels
from skyshore.scheduling.core import MANY_ARMS, SchedulerCore

log = structlog.get_logger()

CHECK_EVERY_S = 1.0


class MachineCode:
    """Watches the size of the fleet."""

    def __init__(self, core: SchedulerCore) -> None:
        self._core = core
        self._in_use = False

    async def run(self) -> None:
        """Wait for a large fleet, then compile. Returns once machine code is in use, or where numba is missing."""
        while self._core.fleet.arm_count < MANY_ARMS:  # noqa: ASYNC110 - heartbeats change the fleet and signal nothing
            await asyncio.sleep(CHECK_EVERY_S)
        if not can_compile():
            log.warning(
                "decisions on a large fleet are slow without numba: pip install 'skyshore[sim]'",
                arms=self._core.fleet.arm_count,
            )
            return
        policy = ""
        while policy != self._core.policy_name:  # it may change during compilation
            policy = self._core.policy_name
            await self._compile(policy)
        self._core.use_compiled()
        self._in_use = True
        log.info("decisions run on machine code", arms=self._core.fleet.arm_count)

    async def before_change(self, policy: str) -> None:
        """Compile a policy before it is put in force, if machine code is in use."""
        if self._in_use:
            await self._compile(policy)

    async def _compile(self, policy: str) -> None:
        await asyncio.to_thread(compile_kernels, policy, self._core.settings.policy_settings)
