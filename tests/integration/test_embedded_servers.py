"""The embedded servers themselves: real processes, real kills."""

import asyncio
import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import nats
import pytest
import redis.asyncio

from navarch_controlplane.embedded.child import ChildFailed
from navarch_controlplane.embedded.datadir import DataDir, DataDirInUse, started_at
from navarch_controlplane.embedded.servers import EmbeddedServers

pytestmark = pytest.mark.integration

PARENT = """
import asyncio, json, os, random, sys, pathlib
from navarch_controlplane.embedded.datadir import DataDir
from navarch_controlplane.embedded.servers import EmbeddedServers

async def main():
    data = DataDir(pathlib.Path(sys.argv[1]))
    with data.lock("test", "now"):
        servers = EmbeddedServers(data, os.environ, random.Random(1))
        async with servers.running() as addresses:
            pids = [child.pid for child in servers.children.values()]
            print(json.dumps([addresses.nats, addresses.redis, pids]), flush=True)
            await asyncio.sleep(3600)

asyncio.run(main())
"""


def embedded(path: Path) -> tuple[DataDir, EmbeddedServers]:
    data = DataDir(path)
    return data, EmbeddedServers(data, os.environ, random.Random())


async def eventually(what: Callable[[], bool], within_s: float = 10.0) -> None:
    async with asyncio.timeout(within_s):
        while not what():
            await asyncio.sleep(0.01)


async def test_what_was_acknowledged_is_there_after_a_stop_and_a_start_on_the_same_ports(tmp_path: Path) -> None:
    data, servers = embedded(tmp_path)
    with data.lock("test", "now"):
        async with servers.running() as first:
            assert first.nats is not None
            assert first.redis is not None
            bus, store = await nats.connect(first.nats), redis.asyncio.from_url(first.redis)
            await bus.jetstream().add_stream(name="KEPT", subjects=["kept.>"])
            await bus.jetstream().publish("kept.one", b"1")
            await store.set("kept", "1")
            await bus.close()
            await store.aclose()
        assert all(child.pid is None for child in servers.children.values())
        again = EmbeddedServers(data, os.environ, random.Random())
        async with again.running() as second:
            assert second == first
            bus, store = await nats.connect(str(second.nats)), redis.asyncio.from_url(str(second.redis))
            assert (await bus.jetstream().get_last_msg("KEPT", "kept.one")).data == b"1"
            assert await store.get("kept") == b"1"
            await bus.close()
            await store.aclose()


async def test_both_servers_keep_what_they_acknowledge_and_evict_nothing(tmp_path: Path) -> None:
    data, servers = embedded(tmp_path)
    with data.lock("test", "now"):
        async with servers.running() as addresses:
            store = redis.asyncio.from_url(str(addresses.redis), decode_responses=True)
            settings = await store.config_get("appendonly", "appendfsync", "maxmemory-policy", "save", "bind")
            assert settings == {
                "appendonly": "yes", "appendfsync": "always", "maxmemory-policy": "noeviction", "save": "",
                "bind": "127.0.0.1",
            }  # fmt: skip
            await store.aclose()
            assert "sync_interval: always" in (tmp_path / "nats" / "nats.conf").read_text()


@pytest.mark.parametrize("name", ["nats", "redis"])
async def test_a_server_that_is_killed_alone_comes_back_on_the_same_port(tmp_path: Path, name: str) -> None:
    data, servers = embedded(tmp_path)
    with data.lock("test", "now"):
        async with servers.running() as addresses:
            child = servers.children[name]
            killed = child.pid
            assert killed is not None
            os.kill(killed, signal.SIGKILL)
            await eventually(lambda: child.restarts == 1 and child.pid not in {None, killed})
            assert servers.addresses == addresses
            async with asyncio.timeout(10):
                while not await child.spec.answers(child.spec.port):
                    await asyncio.sleep(0.01)


async def test_a_port_that_was_taken_meanwhile_is_given_up(tmp_path: Path) -> None:
    data, servers = embedded(tmp_path)
    with data.lock("test", "now"):
        async with servers.running() as first:
            port = int(str(first.nats).rpartition(":")[2])
        squatter = await asyncio.start_server(lambda _reader, writer: writer.close(), "127.0.0.1", port)
        async with squatter, EmbeddedServers(data, os.environ, random.Random()).running() as second:
            assert second.nats != first.nats
            assert second.redis == first.redis


async def test_a_server_that_cannot_start_says_why_and_leaves_nothing_running(tmp_path: Path) -> None:
    broken = tmp_path / "redis-server"
    broken.write_text("#!/bin/sh\necho 'no memory today' >&2\nexit 3\n")
    broken.chmod(0o755)
    data = DataDir(tmp_path / "data")
    servers = EmbeddedServers(data, {**os.environ, "NAVARCH_REDIS_SERVER": str(broken)}, random.Random())
    with data.lock("test", "now"):
        with pytest.raises(ChildFailed, match="no memory today"):
            async with servers.running():
                pytest.fail("it runs")
        assert all(child.pid is None for child in servers.children.values())


def test_after_a_kill_of_the_parent_the_servers_die_too_and_the_directory_is_free(tmp_path: Path) -> None:
    parent = subprocess.Popen([sys.executable, "-c", PARENT, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    try:
        assert parent.stdout is not None
        _, _, pids = json.loads(parent.stdout.readline())
        with pytest.raises(DataDirInUse, match=f"pid {parent.pid}"), DataDir(tmp_path).lock("test", "now"):
            pytest.fail("taken from under a living parent")
    finally:
        parent.kill()
        parent.communicate(timeout=10)
    with DataDir(tmp_path).lock("test", "now"):
        pass
    deadline = time.monotonic() + 5
    while any(started_at(pid) is not None for pid in pids):
        assert time.monotonic() < deadline, f"still there: {pids}"
        time.sleep(0.01)


def test_ctrl_c_on_the_terminal_does_not_reach_the_servers(tmp_path: Path) -> None:
    parent = subprocess.Popen(
        [sys.executable, "-c", PARENT, str(tmp_path)], stdout=subprocess.PIPE, text=True, start_new_session=True
    )
    try:
        assert parent.stdout is not None
        _, _, pids = json.loads(parent.stdout.readline())
        assert all(os.getpgid(pid) != parent.pid for pid in pids)
    finally:
        parent.kill()
        parent.communicate(timeout=10)
