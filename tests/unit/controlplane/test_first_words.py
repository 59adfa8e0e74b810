from pathlib import Path

import pytest

from navarch_common.config import Config
from navarch_common.config.load import load_file
from navarch_controlplane.embedded.datadir import Runtime
from navarch_controlplane.first_words import first_words

UP = Path(__file__).resolve().parents[3] / "deploy/examples/up.yaml"


@pytest.fixture
def config() -> Config:
    return load_file(UP, {}).config


def said(config: Config, http: str = "http://127.0.0.1:8080") -> str:
    runtime = Runtime(
        http=http, grpc="grpc://127.0.0.1:50051", nats="nats://127.0.0.1:1", redis="r", pid=1, started_at=0
    )
    return first_words(
        config,
        runtime,
        data_dir="navarch-data",
        config_file="navarch-data/navarch.yaml",
        log_file="navarch-data/control-plane.log",
        navarch="navarch",
        version="0",
    )


def test_it_says_what_runs_and_where(config: Config) -> None:
    words = said(config)
    for part in ("http://127.0.0.1:8080", "grpc://127.0.0.1:50051", "nats://127.0.0.1:1", "training: 3 nodes on local"):
        assert part in words


def test_commands_to_try_name_the_server_only_where_it_is_not_the_default(config: Config) -> None:
    assert "\n  navarch list" in said(config)
    assert "\n  navarch -s http://127.0.0.1:9 list" in said(config, http="http://127.0.0.1:9")


def test_faults_are_offered_only_where_machines_are_simulated(config: Config) -> None:
    assert "inject" in said(config)
    assert "inject" not in said(Config())
