"""`navarch up` as a newcomer meets it: start, stop, kill, start again. Real command, real processes."""

import json
import os
import signal
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from support.fleet import BIN, Fleet, environment, fleet_in

pytestmark = [pytest.mark.integration, pytest.mark.slow]


@pytest.fixture
def fleet(tmp_path: Path) -> Iterator[Fleet]:
    with fleet_in(tmp_path) as fleet:
        yield fleet


def server_named(fleet: Fleet, name: str) -> psutil.Process | None:
    return next((process for process in fleet.processes() if name in process.name()), None)


def test_a_first_start_runs_three_nodes_and_says_where_everything_is(fleet: Fleet) -> None:
    runtime = fleet.start()
    nodes = fleet.until_active(3)
    assert set(fleet.machines()) == nodes
    assert {"http", "grpc", "nats", "redis", "pid"} <= set(runtime)
    for part in (runtime["http"], runtime["grpc"], runtime["nats"], "training: 3 nodes on local", "inject", "Ctrl-C"):
        assert part in fleet.said


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_clean_stop_leaves_no_process_and_no_runtime_file(fleet: Fleet, number: signal.Signals) -> None:
    fleet.start()
    fleet.until_active(3)
    assert fleet.stop(number) < 10
    assert not fleet.processes()
    assert not (fleet.data_dir / "runtime.json").exists()


def test_the_next_start_boots_the_same_nodes_again_and_none_has_failed(fleet: Fleet) -> None:
    first = fleet.start()
    nodes = fleet.until_active(3)
    boots = {path.parent.name: json.loads(path.read_text())["boot_id"] for path in _machine_files(fleet)}
    fleet.stop()
    second = fleet.start()
    assert (second["nats"], second["redis"]) == (first["nats"], first["redis"])
    fleet.until(lambda: set(fleet.machines()) == nodes, what="the same machines")
    assert fleet.until_active(3) == nodes
    again = {path.parent.name: json.loads(path.read_text())["boot_id"] for path in _machine_files(fleet)}
    assert all(boots[node] != again[node] for node in nodes)
    assert not [event["type"] for event in fleet.events() if event["type"] in {"node.failed.v1", "node.suspect.v1"}]


def test_after_a_kill_the_servers_die_the_machines_live_on_and_the_next_start_adopts_them(fleet: Fleet) -> None:
    fleet.start()
    nodes = fleet.until_active(3)
    pids = fleet.machines()
    fleet.kill()
    fleet.until(lambda: not (server_named(fleet, "nats-server") or server_named(fleet, "server")), what="dead servers")
    assert fleet.machines() == pids
    fleet.start()
    assert fleet.until_active(3) == nodes
    assert fleet.machines() == pids
    assert not fleet.events("node.failed.v1")


@pytest.mark.parametrize(("name", "key"), [("nats-server", "nats"), ("redis-server valkey-server", "redis")])
def test_a_server_that_is_killed_alone_comes_back_where_it_was(fleet: Fleet, name: str, key: str) -> None:
    runtime = fleet.start()
    nodes = fleet.until_active(3)
    killed = next(process for process in fleet.processes() if process.name() in name.split())
    killed.kill()
    fleet.until(
        lambda: [one for one in fleet.processes() if one.name() in name.split() and one.pid != killed.pid],
        what=f"another {name}",
    )
    after = fleet.runtime()
    assert after is not None
    assert after[key] == runtime[key]
    fleet.navarch("cordon", min(nodes), "--reason", "to see a commit and its event pass")
    fleet.until(lambda: fleet.events("node.cordoned.v1"), what="an event through the servers")
    assert not fleet.events("node.failed.v1")


def test_a_second_start_on_the_same_directory_is_told_who_holds_it(fleet: Fleet) -> None:
    runtime = fleet.start()
    second = subprocess.run(
        [BIN / "navarch", "up", "--http", "127.0.0.1:0", "--grpc", "127.0.0.1:0"], cwd=fleet.directory, check=False,
        capture_output=True, text=True, timeout=30, env=environment(),
    )  # fmt: skip
    assert second.returncode == 1
    for part in (f"pid {runtime['pid']}", runtime["http"], "--data-dir"):
        assert part in second.stderr
    assert "Traceback" not in second.stderr


def test_a_busy_port_is_refused_by_the_name_of_its_flag_and_nothing_is_left(fleet: Fleet) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        address = f"127.0.0.1:{other.getsockname()[1]}"
        process = fleet.spawn("--grpc", address)
        assert process.wait(timeout=30) == 1
    assert address in fleet.said
    assert "--grpc" in fleet.said
    assert not fleet.processes()


def test_control_plane_with_a_file_is_the_same_thing(tmp_path: Path) -> None:
    config = tmp_path / "navarch.yaml"
    config.write_text(
        "server: {http_address: '127.0.0.1:0', address: '127.0.0.1:0'}\n"
        "providers:\n  here: {type: local, gpu_count: 4}\n"
        "pools:\n  small: {instance_type: l4-4x, min_nodes: 1, max_nodes: 2}\n"
    )
    fleet = Fleet(tmp_path)
    with (tmp_path / "log").open("w") as log:
        process = subprocess.Popen(
            [BIN / "control-plane", "--config", config.name], cwd=tmp_path, stdout=log, stderr=log,
            env=environment(), start_new_session=True,
        )  # fmt: skip
    fleet._process = process  # type: ignore[assignment]  # started by another command than its own
    fleet._said = tmp_path / "log"
    try:
        fleet.until(fleet.runtime, what="runtime.json")
        (node,) = fleet.until_active(1)
        assert node.startswith("small-")
        assert fleet.nodes()[0]["gpus"] == 4
        os.kill(process.pid, signal.SIGTERM)
        assert process.wait(timeout=12) == 0
        assert not fleet.processes()
    finally:
        fleet.clean_up()


def test_a_wrong_configuration_is_told_by_file_line_and_key_and_nothing_starts(tmp_path: Path) -> None:
    with fleet_in(tmp_path, "providers:\n  local: {type: local}\npools:\n  training:\n    min_node: 3\n") as fleet:
        assert fleet.spawn().wait(timeout=30) == 2
        assert "navarch.yaml:5" in fleet.said
        assert "min_nodes" in fleet.said
        assert "Traceback" not in fleet.said
        assert not fleet.processes()


def _machine_files(fleet: Fleet) -> list[Path]:
    return sorted(fleet.data_dir.glob("instances/*/machine.json"))
