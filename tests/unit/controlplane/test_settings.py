import socket
from pathlib import Path

import pytest

from navarch_common.config import BusConfig, Config, ServerConfig, StateConfig
from navarch_controlplane.settings import BadAddress, ControlPlaneSettings, DoorTaken, Options, check_doors, with_doors


def test_without_addresses_we_run_our_own_servers() -> None:
    settings = ControlPlaneSettings.of(Config(), {})
    assert (settings.nats_url, settings.redis_url) == ("", "")


def test_the_environment_wins_over_the_file() -> None:
    config = Config(bus=BusConfig(url="nats://file:4222"), state=StateConfig(url="redis://file:6379"))
    settings = ControlPlaneSettings.of(config, {"NAVARCH_NATS_URL": "nats://environment:4222"})
    assert (settings.nats_url, settings.redis_url) == ("nats://environment:4222", "redis://file:6379")


def test_a_port_without_a_host_is_this_machines_alone() -> None:
    config = with_doors(Config(), Options(http=":9999"))
    assert ControlPlaneSettings.of(config, {}).http == ("127.0.0.1", 9999)


def test_the_callers_addresses_win_over_the_file() -> None:
    config = Config(server=ServerConfig(http_address=":1", address=":2"))
    settings = ControlPlaneSettings.of(with_doors(config, Options(grpc="127.0.0.1:3")), {})
    assert (settings.http[1], settings.grpc[1]) == (1, 3)


@pytest.mark.parametrize("address", ["here", "host:99999", "::1:8080"])
def test_what_is_no_address_is_refused_by_the_name_of_its_flag(address: str) -> None:
    with pytest.raises(BadAddress, match="--http"):
        with_doors(Config(), Options(http=address))


def test_an_address_that_others_can_reach_needs_to_be_asked_for() -> None:
    with pytest.raises(BadAddress, match="--insecure"):
        with_doors(Config(), Options(grpc="0.0.0.0:50051"))
    assert with_doors(Config(), Options(grpc="0.0.0.0:50051", insecure=True)).server.address == "0.0.0.0:50051"


@pytest.mark.parametrize(("flag", "field"), [("--http", "http"), ("--grpc", "grpc")])
def test_a_busy_port_is_an_error_that_names_the_flag(flag: str, field: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        options = Options(**{"http": "127.0.0.1:0", "grpc": "127.0.0.1:0", field: f"127.0.0.1:{port}"})
        with pytest.raises(DoorTaken, match=f"127.0.0.1:{port}.*{flag}"):
            check_doors(ControlPlaneSettings.of(with_doors(Config(), options), {}))


def test_the_default_configuration_is_the_one_that_we_show() -> None:
    root = Path(__file__).resolve().parents[3]
    ours = root / "services/controlplane/navarch_controlplane/default.yaml"
    assert ours.read_text() == (root / "deploy/examples/up.yaml").read_text()
