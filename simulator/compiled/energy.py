"""`skyshore.nodemodel.energy` on arrays: the ledger of every node; a lane is a server."""

from __future__ import annotations

from simulator.compiled.jit import compiled
from simulator.compiled.layout import Fleet, Run
from simulator.compiled.line import append, index, remove_at, take_first
from simulator.compiled.servers import busy_s
from skyshore.nodemodel.energy import idle_part

_idle_part = compiled(idle_part)


@compiled
def meter_joules(run: Run, fleet: Fleet, number: int) -> float:
    """What a node drew so far."""
    node, busy = fleet.nodes[number], 0.0
    for server in range(node.first_server, node.first_server + node.servers):
        busy += fleet.servers[server].busy_watts * busy_s(run, fleet, server)
    return float(node.idle_watts * run.clock[0].now_s + busy)


@compiled
def open_account(run: Run, fleet: Fleet, server: int, task: int) -> None:
    """A task arrived at a server."""
    _observe(run, fleet, fleet.servers[server].node)
    run.tasks[task].pays = 0
    append(fleet.unpaid[server], task)
    _promote(run, fleet, server)


@compiled
def close_account(run: Run, fleet: Fleet, server: int, task: int) -> None:
    """The task ended, well or not; its joules are noted with it."""
    lane, account = fleet.servers[server], run.tasks[task]
    node = fleet.nodes[lane.node]
    _observe(run, fleet, lane.node)
    account.inference_joules = account.idle_joules = 0.0
    if not account.pays:
        remove_at(fleet.unpaid[server], index(fleet.unpaid[server], task))
        return
    account.pays = 0
    lane.paying -= 1
    node.paying -= 1
    _promote(run, fleet, server)
    account.inference_joules = node.ledger_inference - account.inference_mark
    account.idle_joules = node.ledger_idle - account.idle_mark


@compiled
def _observe(run: Run, fleet: Fleet, number: int) -> None:
    node, now_s, joules = fleet.nodes[number], run.clock[0].now_s, meter_joules(run, fleet, number)
    spent = joules - node.ledger_joules
    if spent > 0.0:
        node.ledger_joules = joules
    else:
        spent = 0.0
    idle = _idle_part(spent, node.idle_watts, now_s - node.ledger_s)
    node.ledger_s = now_s
    if node.paying:
        node.ledger_inference += (spent - idle) / node.paying
        node.ledger_idle += idle / node.paying


@compiled
def _promote(run: Run, fleet: Fleet, server: int) -> None:
    lane, waiting = fleet.servers[server], fleet.unpaid[server]
    node = fleet.nodes[lane.node]
    while waiting[0] and lane.paying < lane.slots:
        account = run.tasks[take_first(waiting)]
        account.pays, account.inference_mark, account.idle_mark = 1, node.ledger_inference, node.ledger_idle
        lane.paying += 1
        node.paying += 1
