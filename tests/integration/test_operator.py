"""The operator at work: every command against a running fleet, as a person on a terminal and as a script in a pipe."""

import json
import os
import pty
import re
import select
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import httpx
import pytest
import yaml
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

from fixtures.servers import Servers
from navarch_api.v1 import fleet_pb2, fleet_pb2_grpc
from support.apart import apart
from support.fleet import BIN, environment
from support.plane import Plane, plane_in

pytestmark = [pytest.mark.integration, pytest.mark.slow]

CONFIG = """
server: {heartbeat_interval: 1s, autoscale_interval: 1s}
providers:
  local: {type: local, gpu_count: 2}
defaults: {instance_type: h100-2x, scale_down: {idle_after: 1s}, disruption: {max_per_hour: 100}}
pools:
  training: {min_nodes: 2, max_nodes: 4, labels: {team: vision}}
  spare: {min_nodes: 1, max_nodes: 2}
"""
NODE_FIELDS = {
    "node", "pool", "status", "health", "phase", "cordons", "provider", "region", "zone", "instance_type",
    "instance_id", "provider_id", "hostname", "gpus", "replaces", "reason", "created_at", "last_heartbeat",
}  # fmt: skip
POOL_FIELDS = {
    "pool", "desired", "active", "provisioning", "unhealthy", "min_nodes", "max_nodes", "paused", "reason",
}  # fmt: skip
EVENT_FIELDS = {"type", "id", "at", "cluster", "reason", "code", "actor", "rev"}


@pytest.fixture(scope="module")
def plane(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Plane]:
    with plane_in(tmp_path_factory.mktemp("operator"), CONFIG, nodes=2) as plane:
        yield plane


@pytest.fixture
def node(plane: Plane) -> str:
    return min(plane.settled(2))


def said(plane: Plane, *arguments: str, status: int = 0) -> subprocess.CompletedProcess[str]:
    """Runs a command that ends with `status`; what goes wrong is one line and no traceback."""
    done = plane.fleet.navarch(*arguments, check=False)
    assert done.returncode == status, (arguments, done.returncode, done.stdout, done.stderr)
    assert "Traceback" not in done.stderr
    return done


def data(plane: Plane, *arguments: str) -> Any:
    return json.loads(said(plane, *arguments, "-o", "json").stdout)


def url(plane: Plane, door: str = "http") -> str:
    runtime = plane.fleet.runtime()
    assert runtime is not None
    return str(runtime[door])


# --- what is printed ---


def test_each_list_comes_as_table_wide_json_yaml_and_names(plane: Plane, node: str) -> None:
    nodes = data(plane, "list")
    assert {one["pool"] for one in nodes} == {"training", "spare"}
    assert all(set(one) >= NODE_FIELDS for one in nodes)
    assert (nodes[0]["status"], nodes[0]["health"], nodes[0]["gpus"]) == ("active", "healthy", 2)
    again = yaml.safe_load(said(plane, "-o", "yaml", "list").stdout)
    assert [one["node"] for one in again] == [one["node"] for one in nodes]
    assert said(plane, "nodes", "-o", "name").stdout.split() == [one["node"] for one in nodes]
    table, wide = (said(plane, "list", "-o", kind).stdout.splitlines() for kind in ("table", "wide"))
    assert table[0].split()[:4] == ["NODE", "POOL", "STATUS", "HEALTH"]
    assert {"INSTANCE", "PHASE", "REPLACES"} <= set(wide[0].split())
    assert all(set(pool) >= POOL_FIELDS for pool in data(plane, "pools"))
    assert set(data(plane, "pool", "status", "training")) >= POOL_FIELDS
    assert all(set(event) >= EVENT_FIELDS for event in data(plane, "events"))
    assert {one["node"] for one in data(plane, "instances")} == {one["node"] for one in nodes}
    detail = data(plane, "get", node)
    assert set(detail) >= NODE_FIELDS
    assert len(detail["registration"]["gpus"]) == 2


def test_a_selection_that_matches_nothing_is_an_empty_list_and_a_sentence(plane: Plane, node: str) -> None:
    assert said(plane, "list", "--status", "unhealthy", "-o", "json").stdout == "[]\n"
    assert said(plane, "list", "--pool", "none", "-o", "yaml").stdout == "[]\n"
    assert said(plane, "list", "--region", "mars").stdout == "no nodes match\n"
    assert {one["node"] for one in data(plane, "list", "-l", "team=vision")} == plane.settled(2)
    assert {one["node"] for one in data(plane, "list", "--provider", "local", "--status", "NODE_STATUS_ACTIVE")} >= {
        node
    }


def test_a_narrow_terminal_cuts_no_name(plane: Plane, node: str) -> None:
    for width in (40, 80, 200):
        shown, status = on_a_terminal(plane, ["list"], width=width)
        assert status == 0
        assert node in shown
        assert "…" not in shown
        assert max(len(line) for line in shown.splitlines()) <= width


def test_what_is_wrong_is_said_in_a_line_and_an_exit_status(plane: Plane, node: str) -> None:
    for arguments, status in (
        (["get", "nobody"], 1),
        (["explain", "nobody"], 1),
        (["pool", "status", "nobody"], 1),
        (["inject", "nobody", "busy"], 1),
        (["uncordon", node], 1),
        (["pool", "scale", "training", "--nodes", "5"], 1),
        (["list", "--status", "fine"], 2),
        (["list", "-l", "team"], 2),
        (["cordon"], 2),
        (["cordon", node, "-l", "team=vision"], 2),
        (["drain", node], 2),
        (["events", "--since", "long ago"], 2),
        (["freeze", "--reason", "x", "--level", "most"], 2),
    ):
        done = said(plane, *arguments, status=status)
        assert done.stdout == ""
        assert done.stderr.strip()
    for arguments in (["frobnicate"], ["list", "-o", "xml"]):
        assert "Error" in said(plane, *arguments, status=2).stderr


def test_a_server_that_is_down_is_one_line_that_says_what_to_try(plane: Plane) -> None:
    done = said(plane, "-s", "http://127.0.0.1:1", "list", status=1)
    assert len(done.stderr.splitlines()) == 1
    assert "navarch up" in done.stderr
    assert said(plane, "-s", "ftp://x", "list", status=1).stderr.count("\n") == 1


# --- cordon, drain, replace, terminate ---


def test_a_cordon_holds_until_its_holder_lifts_it_and_a_rehearsal_changes_nothing(plane: Plane, node: str) -> None:
    said(plane, "cordon", node, "--dry-run")
    assert plane.node(node).status == "active"
    said(plane, "cordon", node, "--reason", "a loud fan", "--wait")
    found = data(plane, "get", node)
    assert (found["status"], found["health"]) == ("cordoned", "healthy")
    assert [cordon["reason"] for cordon in found["cordons"]] == ["a loud fan"]
    assert "a loud fan" in found["reason"]
    event = plane.hears("node.cordoned", node).event
    assert event["actor"].startswith("operator:")
    answer = data(plane, "uncordon", node, "--wait")
    assert answer[0]["answer"]["outcome"] == "done"
    assert plane.node(node).status == "active"


def test_grave_commands_ask_on_a_terminal_and_need_yes_off_it(plane: Plane, node: str) -> None:
    for verb in ("drain", "replace", "terminate"):
        assert "--yes" in said(plane, verb, node, status=2).stderr
        shown, status = on_a_terminal(plane, [verb, node], types="n\n")
        assert f"{verb} {node}?" in shown
        assert "nothing was done" in shown
        assert status == 1
    assert plane.node(node).status == "active"


def test_a_busy_node_is_not_terminated_unless_forced(plane: Plane, node: str) -> None:
    said(plane, "inject", node, "busy")
    plane.until(lambda: plane.node(node).sample.idle is False, "a busy node")
    done = said(plane, "terminate", node, "--yes", "--wait", status=1)
    assert "--force" in done.stderr
    assert plane.node(node).status == "active"
    said(plane, "terminate", node, "--yes", "--force", "--wait", "--reason", "it must go")
    assert plane.node(node).status == "terminated"
    assert node in {one["node"] for one in data(plane, "list", "--all")}
    assert node not in {one["node"] for one in data(plane, "list")}
    assert node not in plane.settled(2)


def test_a_drain_waits_for_the_work_and_keeps_the_machine(plane: Plane, node: str) -> None:
    said(plane, "inject", node, "busy")
    plane.until(lambda: plane.node(node).sample.idle is False, "a busy node")
    late = said(plane, "drain", node, "--yes", "--wait", "--wait-timeout", "3s", "--reason", "new rack", status=3)
    assert "explain" in late.stderr
    assert plane.node(node).status == "draining"
    plane.until(lambda: "process" in said(plane, "explain", node).stdout, "what the drain waits for", 10)
    said(plane, "inject", node, "idle")
    plane.hears("node.drained", node, within_s=30)
    assert node in plane.living()
    said(plane, "uncordon", node, "--wait")
    plane.settled(2)


def test_a_replacement_is_there_before_the_old_node_goes(plane: Plane, node: str) -> None:
    plane.forget()
    on_a_terminal(plane, ["replace", node, "--reason", "old firmware"], types="y\n")
    plane.hears("node.terminated", node, within_s=40)
    new = next(one.event["node"] for one in plane.heard("node.planned") if one.event["pool"] == "training")
    order = plane.order(
        ("node.planned", new), ("node.active", new), ("node.terminating", node), ("node.terminated", node)
    )
    assert order == sorted(order)
    assert plane.node(new).replaces == node
    assert "old firmware" in said(plane, "explain", node).stdout
    plane.settled(2)


def test_a_selector_names_many_and_each_is_answered(plane: Plane, node: str) -> None:
    nodes = plane.settled(2)
    answers = data(plane, "cordon", "-l", "team=vision", "--wait")
    assert {answer["node"] for answer in answers} == nodes
    assert all(answer["answer"]["outcome"] == "done" for answer in answers)
    assert set(said(plane, "uncordon", "-l", "team=vision", "--wait", "-o", "name").stdout.split()) == nodes
    assert "no node" in said(plane, "cordon", "-l", "team=audio", status=1).stderr


# --- freeze and plan ---


def test_a_freeze_stops_launches_and_terminations_but_no_cordon_and_no_verdict(plane: Plane, node: str) -> None:
    frozen = data(plane, "freeze", "--reason", "an audit")
    assert (frozen["active"], frozen["level"]) == (True, "all")
    try:
        for command in (
            ["terminate", node, "--yes"],
            ["replace", node, "--yes"],
            ["pool", "scale", "training", "-n", "3"],
        ):
            done = said(plane, *command, status=4)
            assert "an audit" in done.stderr
        said(plane, "cordon", node, "--wait")
        said(plane, "uncordon", node, "--wait")
        said(plane, "inject", node, "xid", "79", "--gpu", "1")
        plane.hears("node.failed", node)
        assert plane.node(node).health == "unhealthy"
        time.sleep(2)
        assert len(plane.machines()) == 3
        assert not plane.heard("node.terminating", node)
        assert "an audit" in said(plane, "explain", node).stdout
        assert "an audit" in said(plane, "pool", "status", "training").stdout
        assert "an audit" in said(plane, "status").stdout
        assert said(plane, "plan", "--exit-code").returncode == 0
    finally:
        said(plane, "unfreeze", "--reason", "done")
    plane.hears("node.terminated", node, within_s=40)
    assert node not in plane.settled(2)


def test_a_plan_says_what_would_happen_and_does_nothing_of_it(plane: Plane) -> None:
    assert "nothing" in said(plane, "plan", "--exit-code").stdout
    said(plane, "pool", "scale", "spare", "--nodes", "2", "--wait")
    plane.settled(2, "spare")
    said(plane, "pool", "scale", "spare", "--nodes", "1", "--wait")
    planned = plane.until(lambda: plane.plan("spare").steps, "a step", 20)
    assert {step.pool for step in planned} == {"spare"}
    assert all(step.reason for step in planned)
    plane.settled(1, "spare", within_s=40)


# --- what happened, and what happens ---


def test_events_are_filtered_by_pool_node_and_type(plane: Plane, node: str) -> None:
    assert {event["pool"] for event in data(plane, "events", "--pool", "spare", "--since", "1h")} == {"spare"}
    assert {event["node"] for event in data(plane, "events", "--node", node, "--since", "1h")} == {node}
    assert {event["type"] for event in data(plane, "events", "--type", "node.active")} == {"node.active.v1"}
    assert all(event["type"].startswith("node.") for event in data(plane, "events", "--type", "node.*"))
    assert data(plane, "events", "--type", "pool.exhausted") == []


def test_a_story_is_told_newest_first_with_reasons_and_times(plane: Plane, node: str) -> None:
    story = data(plane, "explain", node)
    times = [item["at"] for item in story["items"]]
    assert times == sorted(times, reverse=True)
    assert all(item["text"] and item["actor"] and item["code"] for item in story["items"])
    assert "node.planned" in {item["event"] for item in story["items"]}
    of_pool = said(plane, "explain", "training").stdout
    assert node in of_pool


@pytest.mark.parametrize("command", [["list", "-w"], ["events", "--follow"]])
def test_ctrl_c_leaves_a_watch_cleanly(plane: Plane, node: str, command: list[str]) -> None:
    shown, status = on_a_terminal(plane, command, types="\x03", after_s=2.0)
    assert status == 130
    assert "Traceback" not in shown
    if command[0] == "list":
        assert node in shown


def test_a_watch_in_a_pipe_is_a_line_for_each_change(plane: Plane, node: str) -> None:
    with subprocess.Popen(
        [str(BIN / "navarch"), "-s", url(plane), "list", "-w", "--pool", "training", "-o", "json"],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment(),
    ) as watch:  # fmt: skip
        assert watch.stdout is not None
        lines = [json.loads(watch.stdout.readline()) for _ in range(2)]
        said(plane, "cordon", node, "--wait")
        lines.append(json.loads(watch.stdout.readline()))
        watch.send_signal(signal.SIGINT)
        assert watch.wait(timeout=10) == 130
        assert watch.stderr is not None
        assert watch.stderr.read() == ""
    assert [(line["node"], line["status"]) for line in lines][-1] == (node, "cordoned")
    said(plane, "uncordon", node, "--wait")


# --- the doors ---


def test_the_probes_and_metrics_answer(plane: Plane, node: str) -> None:
    for door in ("livez", "healthz", "readyz"):
        assert httpx.get(f"{url(plane)}/{door}").status_code == 200
    metrics = httpx.get(f"{url(plane)}/metrics").text
    for name in ("navarch_build_info", "navarch_heartbeats_total", "navarch_pool_nodes_desired", "navarch_frozen"):
        assert name in metrics
    assert re.search(r'navarch_pool_nodes\{pool="training",status="active"\} 2', metrics)


def test_grpc_answers_fleet_health_and_reflection(plane: Plane, node: str) -> None:
    with grpc.insecure_channel(url(plane, "grpc").removeprefix("grpc://")) as channel:
        nodes = fleet_pb2_grpc.FleetStub(channel).ListNodes(fleet_pb2.ListNodesRequest(pool="training"), timeout=10)
        assert node in {one.node for one in nodes.items}
        health = health_pb2_grpc.HealthStub(channel)
        for service in ("", "navarch.v1.Fleet"):
            answer = health.Check(health_pb2.HealthCheckRequest(service=service), timeout=10)
            assert answer.status == health_pb2.HealthCheckResponse.SERVING
        ask = reflection_pb2.ServerReflectionRequest(list_services="")
        answers = list(reflection_pb2_grpc.ServerReflectionStub(channel).ServerReflectionInfo(iter([ask]), timeout=10))
        assert "navarch.v1.Fleet" in {one.name for one in answers[0].list_services_response.service}


# --- while something is down ---


def test_followed_events_go_on_over_a_restart_of_the_control_plane(plane: Plane, node: str) -> None:
    doors = ["--http", url(plane).removeprefix("http://"), "--grpc", url(plane, "grpc").removeprefix("grpc://")]
    with subprocess.Popen(
        [str(BIN / "navarch"), "-s", url(plane), "events", "--follow", "-o", "json"],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment(),
    ) as follow:  # fmt: skip
        time.sleep(1.5)
        said(plane, "cordon", node, "--reason", "before the restart", "--wait")
        assert line_with(follow, "before the restart")["node"] == node
        plane.fleet.kill()
        plane.fleet.start(*doors)
        said(plane, "uncordon", node, "--reason", "after the restart", "--wait")
        assert line_with(follow, "after the restart")["node"] == node
        follow.send_signal(signal.SIGINT)
        assert follow.wait(timeout=10) == 130
        assert follow.stderr is not None
        assert "Traceback" not in follow.stderr.read()


def line_with(process: "subprocess.Popen[str]", reason: str, within_s: float = 20.0) -> dict[str, Any]:
    """Reads events until one has these words in its reason."""
    assert process.stdout is not None
    deadline = time.monotonic() + within_s
    while time.monotonic() < deadline:
        if not select.select([process.stdout], [], [], 0.2)[0]:
            continue
        event: dict[str, Any] = json.loads(process.stdout.readline())
        if reason in event["reason"]:
            return event
    raise AssertionError(f"no event whose reason has {reason!r}")


APART = """
cluster: {name}
bus: {{prefix: {name}}}
server: {{http_address: '127.0.0.1:0', address: '127.0.0.1:0', heartbeat_interval: 300ms}}
providers: {{local: {{type: local, gpu_count: 2}}}}
pools: {{training: {{instance_type: h100-2x, min_nodes: 1, max_nodes: 3}}}}
"""


def test_a_wish_is_accepted_while_its_owner_is_down_and_answered_when_it_is_back(
    tmp_path: Path, servers: Servers, unique: str
) -> None:
    with apart(tmp_path, servers, APART.format(name=unique)) as services:
        for service in ("gateway", "health", "autoscaler", "provisioner"):
            services.start(service)
        (node,) = services.until_active(1)
        services.kill("provisioner")
        services.kill("autoscaler")
        server = services.http
        cordon = asked(server, "cordon", node, "-o", "json")[0]
        scale = asked(server, "pool", "scale", "training", "--nodes", "2", "-o", "json")
        with httpx.Client(base_url=f"{server}/api/v1", timeout=10) as http:
            assert http.get(f"/nodes/{node}/wishes/{cordon['request_id']}").json()["state"] == "open"
            assert http.get(f"/pools/training/wishes/{scale['request_id']}").json()["state"] == "open"
            assert http.get("/plan").status_code == 503
            services.start("provisioner")
            services.start("autoscaler")
            services.until(
                lambda: http.get(f"/nodes/{node}/wishes/{cordon['request_id']}").json()["state"] == "answered",
                "an answer",
            )
            services.until(
                lambda: http.get(f"/pools/training/wishes/{scale['request_id']}").json()["state"] == "answered",
                "another",
            )
        services.until(lambda: len(services.nodes()) == 2, "the node that was asked for")


def asked(server: str, *arguments: str) -> Any:
    done = subprocess.run(
        [str(BIN / "navarch"), "-s", server, *arguments], check=True, capture_output=True, text=True, timeout=60,
        env=environment(),
    )  # fmt: skip
    return json.loads(done.stdout)


# --- a terminal ---


def on_a_terminal(
    plane: Plane, command: list[str], *, types: str = "", width: int = 100, after_s: float = 0.8
) -> tuple[str, int]:
    """Runs the command on a terminal of its own, types something after a while, and returns what was shown."""
    pid, terminal = pty.fork()
    if pid == 0:  # pragma: no cover - the child
        os.execve(BIN / "navarch", ["navarch", "-s", url(plane), *command], {**environment(), "COLUMNS": str(width)})
    shown = b""
    began = time.monotonic()
    waiting = types.encode()
    try:
        while time.monotonic() - began < 30:
            if waiting and time.monotonic() - began > after_s and (shown or after_s > 1):
                os.write(terminal, waiting)
                waiting = b""
            if select.select([terminal], [], [], 0.1)[0]:
                try:
                    shown += os.read(terminal, 65536)
                except OSError:  # the other end is closed
                    break
        else:
            os.kill(pid, signal.SIGKILL)
    finally:
        os.close(terminal)
        _, status = os.waitpid(pid, 0)
    text = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", shown.decode(errors="replace")).replace("\r", "")
    return text, os.waitstatus_to_exitcode(status)
