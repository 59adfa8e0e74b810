from pathlib import Path

import pytest

from navarch_controlplane.embedded.binaries import ServerNotFound, find_nats, find_redis


def program(directory: Path, name: str) -> Path:
    directory.mkdir(exist_ok=True)
    file = directory / name
    file.write_text("#!/bin/sh\n")
    file.chmod(0o755)
    return file


def test_the_environments_redis_wins_over_path(tmp_path: Path) -> None:
    mine = program(tmp_path / "mine", "my-redis")
    program(tmp_path / "path", "redis-server")
    assert find_redis({"NAVARCH_REDIS_SERVER": str(mine), "PATH": str(tmp_path / "path")}) == mine


def test_a_program_that_the_environment_names_and_that_is_not_there_is_refused() -> None:
    with pytest.raises(ServerNotFound, match="NAVARCH_REDIS_SERVER"):
        find_redis({"NAVARCH_REDIS_SERVER": "/nowhere/redis-server", "PATH": "/usr/bin"})


@pytest.mark.parametrize("name", ["redis-server", "valkey-server"])
def test_a_server_on_path_wins_over_the_wheel(tmp_path: Path, name: str) -> None:
    found = program(tmp_path, name)
    assert find_redis({"PATH": str(tmp_path)}) == found


def test_without_any_on_path_the_wheels_are_found(tmp_path: Path) -> None:
    assert find_redis({"PATH": str(tmp_path)}).name in {"valkey-server", "redis-server"}
    assert find_nats({"PATH": str(tmp_path)}).name == "nats-server"
