"""The relay on real sockets and in real time: its rates and delays are as accurate as promised."""

import asyncio
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import httpx
import pytest
import uvloop

from services.links.app import RelayRules, create_app
from services.links.fleet import LinkFleet, RelayAddresses
from skyshore.domain.errors import InvalidTask, NotFound, PermissionDenied
from skyshore.links.settings import Direction, LinkSettings


async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Answers every message, 4 length bytes and that many bytes, with its first 4 bytes once it is complete."""
    try:
        while head := await reader.readexactly(4):
            await reader.readexactly(int.from_bytes(head))
            writer.write(head)
            await writer.drain()
    except (asyncio.IncompleteReadError, ConnectionError):
        pass
    finally:
        writer.close()


@asynccontextmanager
async def behind(settings: LinkSettings, *more: LinkSettings, folder=".") -> AsyncIterator[tuple[LinkFleet, list[str]]]:
    """An echo server behind one link per setting; yields the addresses to connect to."""
    server = await asyncio.start_server(echo, "127.0.0.1", 0)
    target = f"127.0.0.1:{server.sockets[0].getsockname()[1]}"
    async with LinkFleet(Path(folder), seed=1) as fleet:
        addresses = RelayAddresses("127.0.0.1:0", target)
        added = [await fleet.add(f"l{i}", addresses, each) for i, each in enumerate((settings, *more))]
        yield fleet, [each.listen for each in added]
    server.close()
    await server.wait_closed()


class Peer:
    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer

    async def send(self, size: int) -> float:
        """Seconds until a message of `size` bytes is acknowledged."""
        loop = asyncio.get_running_loop()
        start = loop.time()
        self.writer.write(size.to_bytes(4) + bytes(size))
        await self.writer.drain()
        await self.reader.readexactly(4)
        return loop.time() - start


@asynccontextmanager
async def connected(address: str) -> AsyncIterator[Peer]:
    host, _, port = address.rpartition(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    try:
        yield Peer(reader, writer)
    finally:
        writer.close()


async def quickest(take: Callable[[], Awaitable[float]], at_most_s: float, tries: int = 20) -> float:
    """The first try within `at_most_s`, else the shortest of all tries.

    A busy machine makes a link slower, never faster. So no try may be faster than the settings, and the best try must
    not be slower.
    """
    taken = [await take()]
    while min(taken) > at_most_s and len(taken) < tries:
        taken.append(await take())
    return min(taken)


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(60):
        while not condition():  # noqa: ASYNC110 - a counter to read, not an event to await
            await asyncio.sleep(0.01)


async def test_the_rate_is_within_three_percent_up_and_free_down():
    up = Direction(rate_bytes_per_s=2.5e6)
    async with behind(LinkSettings(up=up)) as (fleet, (address,)), connected(address) as peer:
        await peer.send(2_500_000)
        link, _ = fleet.link("l0")
        assert link.counters.up_bytes == 2_500_004
        best_s = await quickest(lambda: peer.send(2_500_000), 1.03)
    assert 2_500_000 / best_s == pytest.approx(2.5e6, rel=0.03)


async def test_the_round_trip_is_within_two_milliseconds():
    settings = LinkSettings(up=Direction(delay_s=0.03), down=Direction(delay_s=0.02))
    async with behind(settings) as (_, (address,)), connected(address) as peer:

        async def trip() -> float:
            taken_s = await peer.send(100)
            assert taken_s >= 0.050
            return taken_s

        assert await quickest(trip, 0.052, 200) <= 0.052


async def test_two_nodes_on_one_uplink_contend_and_two_links_do_not():
    alone = LinkSettings(up=Direction(rate_bytes_per_s=2e6))
    shared = replace(alone, shared="mast")
    for settings, expected in ((alone, 0.5), (shared, 1.0)):
        async with (
            behind(settings, settings) as (_, addresses),
            connected(addresses[0]) as a,
            connected(addresses[1]) as b,
        ):

            async def both(a: Peer = a, b: Peer = b) -> float:
                return max(await asyncio.gather(a.send(1_000_000), b.send(1_000_000)))

            best_s = await quickest(both, 1.08 * expected)
        assert best_s == pytest.approx(expected, rel=0.08)


async def test_changes_take_effect_on_bytes_under_way():
    slow, fast = LinkSettings(up=Direction(rate_bytes_per_s=2_000)), LinkSettings(up=Direction(rate_bytes_per_s=2e7))
    async with behind(slow) as (fleet, (address,)), connected(address) as peer:
        sending = asyncio.create_task(peer.send(200_000))
        link, _ = fleet.link("l0")
        await until(lambda: link.counters.up_bytes > 0)
        assert not sending.done()
        fleet.change("l0", fast)
        assert await sending < 60, "at the old rate it would take 100 s"


async def test_an_outage_delays_and_keeps_every_byte():
    async with behind(LinkSettings()) as (fleet, (address,)), connected(address) as peer:
        await peer.send(10)

        async def interrupted() -> float:
            began_s = asyncio.get_running_loop().time()
            fleet.interrupt("l0", 0.4)
            await peer.send(1000)
            taken_s = asyncio.get_running_loop().time() - began_s
            assert taken_s >= 0.38
            return taken_s

        assert await quickest(interrupted, 0.6) <= 0.6
        assert await quickest(lambda: peer.send(1000), 0.1) <= 0.1


async def test_a_trace_starts_with_the_experiment_not_with_the_process(tmp_path):
    (tmp_path / "step.csv").write_text("0, 0.001\n1, 80\n1000, 80\n")
    settings = LinkSettings(up=Direction(trace="step.csv"))
    async with behind(settings, folder=tmp_path) as (fleet, (address,)), connected(address) as peer:

        async def restarted() -> float:
            began_s = asyncio.get_running_loop().time()
            fleet.restart()
            await peer.send(100_000)
            taken_s = asyncio.get_running_loop().time() - began_s
            assert taken_s > 0.9
            return taken_s

        assert await quickest(restarted, 1.3) <= 1.3, "one second of next to nothing, then 10 MB/s"
        assert await quickest(lambda: peer.send(100_000), 0.1) <= 0.1
        assert await quickest(restarted, 1.3) <= 1.3, "from the beginning"


async def test_a_closed_end_closes_the_other_and_an_absent_node_is_felt_as_such():
    async with behind(LinkSettings()) as (fleet, (address,)):
        async with connected(address) as peer:
            await peer.send(1)
        link, _ = fleet.link("l0")
        await until(lambda: not link.counters.connections)
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            nobody = RelayAddresses("127.0.0.1:0", f"127.0.0.1:{free.getsockname()[1]}")
            added = await fleet.add("void", nobody, LinkSettings())
        async with connected(added.listen) as peer:
            assert await asyncio.wait_for(peer.reader.read(), 30) == b""


async def test_mistakes_are_named(tmp_path):
    (tmp_path / "bad.csv").write_text("0, 1\n1, x\n")
    shared = LinkSettings(up=Direction(rate_bytes_per_s=1e6), shared="mast")
    async with behind(shared, folder=tmp_path) as (fleet, _):
        addresses = RelayAddresses("127.0.0.1:0", "127.0.0.1:1")
        for settings, error, said in (
            (LinkSettings(up=Direction(trace="bad.csv")), InvalidTask, "line 2"),
            (LinkSettings(up=Direction(trace="none.csv")), NotFound, "SKYSHORE_LINKS_TRACES"),
            (LinkSettings(up=Direction(trace="../../etc/passwd")), PermissionDenied, "outside"),
            (replace(shared, up=Direction(rate_bytes_per_s=2e6)), InvalidTask, "give both the same"),
            (LinkSettings(down=Direction(loss=2)), InvalidTask, "link 'x', down: loss"),
        ):
            with pytest.raises(error, match=said):
                await fleet.add("x", addresses, settings)
        with pytest.raises(InvalidTask, match="already"):
            await fleet.add("l0", addresses, LinkSettings())
        with pytest.raises(NotFound, match="there are l0"):
            fleet.change("y", LinkSettings())


async def test_the_http_interface_shows_changes_and_refuses():
    async with behind(LinkSettings()) as (fleet, (address,)):
        transport = httpx.ASGITransport(create_app(fleet, RelayRules(targets=frozenset({"127.0.0.1:9"}))))
        async with httpx.AsyncClient(transport=transport, base_url="http://links") as http, connected(address) as peer:
            body = {"up": {"rate_bytes_per_s": 1e6}, "down": {"delay_s": 0.05}}
            changed = (await http.put("/links/l0", json=body)).json()
            assert changed["up"]["rate_bytes_per_s"] == 1e6
            assert changed["listen"] == address
            assert await peer.send(10) > 0.05
            assert (await http.get("/links")).json()[0]["connections"] == 1
            assert (await http.post("/links/l0/outage", json={"seconds": 0.1})).status_code == 200
            new = {"name": "l9", "target": "127.0.0.1:9"}
            assert (await http.post("/links", json=new)).status_code == 201
            for response, status, param in (
                (await http.put("/links/l0", json={"up": {"loss": 3}}), 400, "up"),
                (await http.put("/links/none", json={}), 404, "name"),
                (await http.post("/links", json={**new, "name": "z", "listen": "127.0.0.1"}), 403, "listen"),
            ):
                assert (response.status_code, response.json()["error"]["param"]) == (status, param)
            assert (await http.put("/links/l0", json={"upp": {}})).status_code == 422
            before_s = (await http.get("/health")).json()["now_s"]
            assert (await http.post("/restart")).json()["now_s"] < before_s


@pytest.mark.parametrize(
    "listen",
    [
        "0.0.0.0:0",
        "[::]:0",
        ":::0",
        ":0",
        "*:0",
        "10.0.0.1:0",
        "169.254.1.1:0",
        "localhost.:0",
        "LOCALHOST:0",
        "127.0.0.1.nip.example:0",
        "0:0",
        "2130706433:0",
    ],
)
async def test_a_caller_cannot_make_a_relay_listen_beyond_this_machine(listen):
    async with behind(LinkSettings()) as (fleet, _):
        app = create_app(fleet, RelayRules(targets=frozenset({"127.0.0.1:9"})))
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://links") as http:
            body = {"name": "evil", "listen": listen, "target": "127.0.0.1:9"}
            response = await http.post("/links", json=body)
            assert (response.status_code, response.json()["error"]["param"]) == (403, "listen")
            assert len(fleet.all()) == 1


@pytest.mark.parametrize(
    "target",
    [
        "127.0.0.1:6379",
        "localhost:9",
        "127.1:9",
        "[::ffff:127.0.0.1]:9",
        "169.254.169.254:80",
        "127.0.0.1:09",
        "nowhere",
    ],
)
async def test_a_caller_cannot_make_a_relay_reach_what_is_no_target(target):
    async with behind(LinkSettings()) as (fleet, _):
        app = create_app(fleet, RelayRules(targets=frozenset({"127.0.0.1:9"})))
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://links") as http:
            response = await http.post("/links", json={"name": "evil", "target": target})
            assert (response.status_code, response.json()["error"]["param"]) == (403, "target")
            assert len(fleet.all()) == 1


async def test_a_slow_link_makes_its_sender_wait():
    async with behind(LinkSettings(up=Direction(rate_bytes_per_s=50_000))) as (fleet, (address,)):
        host, _, port = address.rpartition(":")
        loop = asyncio.get_running_loop()
        with socket.socket() as sock:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 65_536)
            sock.setblocking(False)
            await loop.sock_connect(sock, (host, int(port)))
            began_s = loop.time()
            sending = asyncio.create_task(loop.sock_sendall(sock, (20_000_000).to_bytes(4) + bytes(20_000_000)))
            link, _ = fleet.link("l0")
            await until(lambda: link.counters.up_bytes >= 50_000)
            assert not sending.done(), "a relay that passes 50 kB/s cannot take 20 MB at once"
            assert link.counters.up_bytes < 50_000 * (loop.time() - began_s) + 50_000
            sending.cancel()
            await asyncio.wait([sending])


def test_nothing_is_lost_on_uvloop_where_bytes_may_come_before_the_far_end_is_there():
    """The process runs on uvloop, which hands over first bytes though reading was paused at once."""

    async def talk() -> tuple[list[float], float]:
        settings = LinkSettings(up=Direction(rate_bytes_per_s=2.5e6))
        async with behind(LinkSettings(), settings) as (_, addresses):
            short = []
            for _ in range(20):
                async with connected(addresses[0]) as peer:
                    short.append(await asyncio.wait_for(peer.send(100), 30))
            async with connected(addresses[1]) as peer:
                return short, await quickest(lambda: peer.send(1_250_000), 0.55)

    short, long = uvloop.run(talk())
    assert len(short) == 20
    assert long == pytest.approx(0.5, rel=0.1)
