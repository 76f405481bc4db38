"""Starts processes stage by stage, watches them, restarts those that end, and stops them in reverse order."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import assert_never

from cli.launcher.errors import LaunchFailed
from cli.launcher.log_view import LogView
from cli.launcher.nodes import DRIFT_FILE
from cli.launcher.process import Child, ProcessSpec
from cli.launcher.restarts import Restarts
from skyshore.scenario.effects import NodeEffect, SlowNode, StartNode, StopNode

PROBE_EVERY_S = 0.1


@dataclass(frozen=True, slots=True)
class Limits:
    """How long the supervisor waits, in seconds."""

    ready_s: float = 120.0
    """Until one stage serves; loading a model on a busy machine takes long."""
    grace_s: float = 20.0
    """Until one process has finished its work after SIGTERM."""


class Supervisor:
    """Owns the processes: only it starts, awaits and stops them.

    A process that ends by itself starts again after a wait that grows (`Restarts`). One that was stopped by a
    `StopNode` effect starts again only by a `StartNode` effect or by `restart`.
    """

    def __init__(
        self,
        stages: Sequence[Sequence[ProcessSpec]],
        log_folder: Path,
        view: LogView,
        limits: Limits = Limits(),
        on_change: Callable[[Child], None] = lambda child: None,
        *,
        restarts: Restarts | None = None,
    ) -> None:
        """`on_change` is called with a process when it has a pid and when it has ended. `restarts`: None for none."""
        self._view, self._limits, self._on_change = view, limits, on_change
        self._restarts = restarts
        self._one_restart = asyncio.Lock()
        self._held: set[Child] = set()
        """Processes whose end is intended."""
        self._restarting: dict[Child, asyncio.Task[None]] = {}
        self._stages = [[Child(spec, log_folder / f"{spec.name}.log", view.show) for spec in s] for s in stages]
        self._ends: dict[asyncio.Task[int], Child] = {}
        self._started_again = asyncio.Event()

    @property
    def children(self) -> list[Child]:
        """All processes, in order of their start."""
        return [child for stage in self._stages for child in stage]

    async def start(self) -> None:
        """Start each stage when the stage before serves.

        Raises:
            LaunchFailed: a process ended, or did not serve in time; the message names and quotes its log.
        """
        for stage in self._stages:
            for child in stage:
                if (file := _drift_file(child)).name:
                    file.unlink(missing_ok=True)
                await self._start(child)
            try:
                async with asyncio.TaskGroup() as waiting:
                    for child in stage:
                        waiting.create_task(self._wait_until_it_serves(child))
            except* LaunchFailed as failures:
                raise failures.exceptions[0] from None
            for child in stage:
                self._view.say(f"{child.spec.name} serves at {child.spec.health.address} (pid {child.pid})", "green")

    async def watch(self) -> Child:
        """Restart every process that ends; return the first essential one that is not restarted."""
        waiting = self._ends = {asyncio.create_task(child.wait()): child for child in self.children}
        started_again = asyncio.create_task(self._started_again.wait())
        try:
            while True:
                done, _ = await asyncio.wait([*waiting, started_again], return_when=asyncio.FIRST_COMPLETED)
                if started_again in done:
                    self._started_again.clear()
                    started_again = asyncio.create_task(self._started_again.wait())
                for child in [waiting.pop(task) for task in done if task in waiting]:
                    if self._has_ended(child):
                        return child
        finally:
            tasks = [*waiting, started_again, *self._restarting.values()]
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    def _has_ended(self, child: Child) -> bool:
        """React to the end of a process; True if the system cannot go on."""
        how = _how_it_ended(child)
        if child in self._held:
            child.trouble = "stopped on request"
            self._view.say(f"{how}, as asked", "yellow")
        elif self._restarts is None:
            self._view.say(f"{how}; it is not restarted. Log: {child.log_path}", "bold red")
            return child.spec.essential
        else:
            child.trouble = f"{how}; it starts again in {self._restart_later(child):.1f} s"
            self._view.say(f"{child.trouble}. Log: {child.log_path}", "bold red")
        self._on_change(child)
        return False

    def _restart_later(self, child: Child) -> float:
        assert self._restarts is not None, "only a system that restarts asks for it"
        wait_s = self._restarts.wait_s(child.spec.name, time.monotonic())
        self._restarting[child] = asyncio.create_task(self._restart_after(child, wait_s))
        return wait_s

    async def restart(self, name: str) -> None:
        """Stop a process, if it runs, and start it; returns when it serves.

        Raises:
            LaunchFailed: no such process, or it does not serve; then it is tried again as after any other end.
        """
        child = self._child(name)
        async with self._one_restart:
            self._held.add(child)
            await child.stop(self._limits.grace_s)
            child.restarts += 1
            await self._start_again(child)
            await self._wait_until_it_serves(child)

    async def _restart_after(self, child: Child, wait_s: float) -> None:
        """Start a process later. One that does not serve in time is killed, so that it is tried again."""
        await asyncio.sleep(wait_s)
        child.restarts += 1
        try:
            await self._start_again(child)
            await self._wait_until_it_serves(child)
        except LaunchFailed as failure:
            self._view.say(failure.message, "bold red")
            child.kill()
        except OSError as error:  # no memory or no descriptors for a process
            self._view.say(f"{child.spec.name} cannot be started: {error}", "bold red")
            self._restart_later(child)

    async def apply(self, name: str, effect: NodeEffect) -> None:
        """Make an effect of a fault happen to the process of a node.

        Raises:
            LaunchFailed: no such process, it is not a node, it cannot be slowed down, or it already runs.
        """
        child = self._child(name)
        match effect:
            case StopNode():
                if child.spec.essential:
                    raise LaunchFailed(f"{name} is not a node: the system cannot run without it, so it is not stopped")
                self._held.add(child)
                child.kill()
            case StartNode():
                if child.returncode is None:
                    raise LaunchFailed(f"{name} already runs; stop it first")
                await self._start_again(child)
            case SlowNode():
                _slow_down(child, effect.slowdown)
            case _:
                assert_never(effect)

    async def stop(self) -> None:
        """Stop the last stage first, so that no process loses one that it still uses."""
        for stage in reversed(self._stages):
            running = [child for child in stage if child.pid and child.returncode is None]
            stopped = await asyncio.gather(*(child.stop(self._limits.grace_s) for child in running))
            for child, in_time in zip(running, stopped, strict=True):
                if in_time:
                    self._view.say(f"{child.spec.name} stopped", "dim")
                else:
                    message = f"{child.spec.name} did not stop within {self._limits.grace_s:g} s and was killed"
                    self._view.say(message, "bold red")

    def kill(self) -> None:
        """Kill all processes at once; `stop` then has nothing to do."""
        for child in self.children:
            child.kill()

    async def _start(self, child: Child) -> None:
        await child.start()
        child.trouble = ""
        self._held.discard(child)
        if self._restarts is not None:
            self._restarts.started(child.spec.name, time.monotonic())
        self._on_change(child)

    async def _start_again(self, child: Child) -> None:
        waiting = self._restarting.pop(child, None)
        if waiting is not None and waiting is not asyncio.current_task():
            waiting.cancel()
        await child.wait()
        await self._start(child)
        self._ends[asyncio.create_task(child.wait())] = child
        self._started_again.set()
        self._view.say(f"{child.spec.name} was started again (pid {child.pid})", "green")

    def _child(self, name: str) -> Child:
        for child in self.children:
            if child.spec.name == name:
                return child
        raise LaunchFailed(
            f"no process '{name}'; the processes are {', '.join(child.spec.name for child in self.children)}"
        )

    async def _wait_until_it_serves(self, child: Child) -> None:
        loop = asyncio.get_running_loop()
        end_s = loop.time() + self._limits.ready_s
        problem = "it was never checked"
        while loop.time() < end_s:
            if child.returncode is not None:
                await child.wait()
                raise _failed(child, _how_it_ended(child))
            problem = await asyncio.to_thread(child.spec.health.problem)
            if not problem and child.owns_its_port():
                return
            problem = problem or f"another process answers at {child.spec.health.address}"
            await asyncio.sleep(PROBE_EVERY_S)
        raise _failed(child, f"{child.spec.name} did not serve within {self._limits.ready_s:g} s: {problem}")


def _slow_down(child: Child, slowdown: float) -> None:
    file = _drift_file(child)
    if not file.name:
        raise LaunchFailed(f"{child.spec.name} is not emulated: a real engine cannot be slowed down")
    fresh = file.with_suffix(".new")
    fresh.write_text(f"{slowdown!r}\n", encoding="utf-8")
    fresh.replace(file)


def _drift_file(child: Child) -> Path:
    """The file in which an emulated node reads its slowdown; an empty path for other processes."""
    return Path(child.spec.env.get(DRIFT_FILE, ""))


def _how_it_ended(child: Child) -> str:
    status = child.returncode
    how = f"was ended by signal {-status}" if status is not None and status < 0 else f"ended with status {status}"
    return f"{child.spec.name} (pid {child.pid}) {how}"


def _failed(child: Child, what: str) -> LaunchFailed:
    return LaunchFailed(f"{what}\nlast lines of {child.log_path}:\n{child.last_lines()}")
