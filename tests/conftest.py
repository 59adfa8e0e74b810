"""Fixtures for all tests: real servers, shared by a whole run and found running by each test."""

import signal
from collections.abc import AsyncIterator, Iterator

import pytest

from fixtures.servers import Servers, make_servers, unique_name
from fixtures.world import World, make_world


def pytest_sessionstart() -> None:
    """Ctrl-C means something to the processes that tests start, also where the tests run in the background of a shell,
    which has them ignore it: what is ignored here would be ignored by them."""
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session")
def session_servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Servers]:
    servers = make_servers(tmp_path_factory.mktemp("servers"))
    try:
        servers.start()
        yield servers
    finally:
        servers.stop()


@pytest.fixture
def servers(session_servers: Servers) -> Servers:
    """NATS and Redis, running. A test may kill, stop and pause them; the next one finds them running again."""
    session_servers.start()
    return session_servers


@pytest.fixture
def killable_servers(session_servers: Servers) -> Iterator[Servers]:
    """The same, for a test that kills them: skipped where they are not ours to kill."""
    if not session_servers.killable:
        pytest.skip("the servers belong to someone else: NAVARCH_TEST_NATS_URL or NAVARCH_TEST_REDIS_URL is set")
    session_servers.start()
    try:
        yield session_servers
    finally:
        for server in (session_servers.nats, session_servers.redis):
            server.resume()
            server.start()


@pytest.fixture
def nats_url(servers: Servers) -> str:
    return servers.nats.url


@pytest.fixture
def redis_url(servers: Servers) -> str:
    return servers.redis.url


@pytest.fixture
def unique() -> str:
    """A cluster's name, or a subject prefix, of this test alone."""
    return unique_name()


@pytest.fixture
async def world() -> AsyncIterator[World]:
    """A store and a bus in memory, started for the first time."""
    made = await make_world()
    try:
        yield made
    finally:
        await made.close()
