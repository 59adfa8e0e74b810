"""What nobody should send: mistakes in files, garbage on subjects, forged reports, names that are none. All of it is told
of, and none of it does harm.
"""

import asyncio
import json
import subprocess
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import nats
import pytest

from support.fleet import BIN, environment
from support.plane import FALLEN_OFF, Plane, plane_in, xid

pytestmark = [pytest.mark.integration, pytest.mark.slow]

CONFIG = """
server: {heartbeat_interval: 1s, autoscale_interval: 1s}
providers:
  local: {type: local, gpu_count: 2}
defaults: {instance_type: h100-2x, cooldown: 0s, scale_down: {idle_after: 1s}}
pools:
  training: {min_nodes: 1, max_nodes: 3, autoscaling: {type: queue, jobs_per_node: 10}}
"""
GARBAGE = [
    b"", b"\xff\xfe\x00", b"{", b"null", b"[]", b"true", b'"40"', b"NaN", b"Infinity", b"-1", b"1e308", b"9" * 40,
    b'{"queue_depth": NaN}', b'{"queue_depth": 1e999}', b'{"type":"no.such.v9"}', b"[" * 50_000, b'{"a":' * 50_000,
    b"x" * 900_000,
]  # fmt: skip


@pytest.fixture(scope="module")
def plane(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Plane]:
    with plane_in(tmp_path_factory.mktemp("bad-input"), CONFIG, nodes=1) as plane:
        yield plane


@pytest.fixture
def node(plane: Plane) -> str:
    plane.outsider.publish("navarch.metrics.queue.training", b"0")
    (node,) = plane.settled(1, within_s=40)
    return node


# --- a file with mistakes ---

FILE = """providers:
  local: {type: local}
pools:
  training:
    provider: local
    instance_type: h100-8x
    min_nodes: 1
    max_nodes: 3
"""
BOMB = "a: &a [x,x,x,x,x,x,x,x,x]\n" + "".join(
    f"{name}: &{name} [{','.join([f'*{before}'] * 9)}]\n" for before, name in zip("abcdef", "bcdefg", strict=True)
)
MISTAKES = [
    pytest.param(FILE.replace("max_nodes", "max_node"), "8:5: pools.training.max_node: unknown key 'max_node'",
                 "did you mean 'max_nodes'?", id="unknown-key"),
    pytest.param(FILE + "    min_nodes: 2\n", "9:5: pools.training.min_nodes: duplicate key", "line 7", id="duplicate-key"),
    pytest.param(FILE.replace("min_nodes: 1", "min_nodes: 9"), "7:5: pools.training.min_nodes: expected at most max_nodes (3)",
                 "found 9", id="min-over-max"),
    pytest.param(FILE.replace("provider: local", "provider: locla"), "5:5: pools.training.provider: unknown provider 'locla'",
                 "did you mean 'local'?", id="unknown-provider"),
    pytest.param(FILE + "    cooldown: 5 minutes\n", "9:5: pools.training.cooldown: expected a duration such as 90s",
                 "found '5 minutes'", id="bad-duration"),
    pytest.param(FILE.replace("training:", "Training_1:"), "4:3: pools.Training_1: expected an id", "lower-case letters",
                 id="bad-id"),
    pytest.param(BOMB + FILE, "bad.yaml:", "once every alias is written out", id="alias-bomb"),
    pytest.param(FILE.replace("max_nodes: 3", "max_nodes: .nan"), "8:5: pools.training.max_nodes: expected a whole number",
                 "found .nan", id="no-number"),
    pytest.param(FILE + "    autoscaling: {type: queu}\n", "9:19: pools.training.autoscaling.type: expected one of",
                 "did you mean 'queue'?", id="unknown-strategy"),
    pytest.param(FILE + "    labels: {team: '${NO_SUCH_VARIABLE}'}\n", "9:14: pools.training.labels.team",
                 "NO_SUCH_VARIABLE", id="missing-variable"),
]  # fmt: skip


@pytest.mark.parametrize(("text", "place", "hint"), MISTAKES)
def test_a_mistake_is_told_with_its_place_and_what_was_expected(
    tmp_path: Path, text: str, place: str, hint: str
) -> None:
    (tmp_path / "bad.yaml").write_text(text)
    commands = [(["navarch", "config", "check", "bad.yaml"], 1)]
    if "max_node:" in text or text.startswith(BOMB):  # who starts reads files with the same code
        doors = ["--http", "127.0.0.1:0", "--grpc", "127.0.0.1:0"]
        commands += [
            (["control-plane", "--config", "bad.yaml", *doors], 2),
            (["navarch", "up", "-c", "bad.yaml", *doors], 2),
        ]
    running = [
        subprocess.Popen(
            [str(BIN / command[0]), *command[1:]], cwd=tmp_path, env=environment(), text=True,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        )
        for command, _ in commands
    ]  # fmt: skip
    for process, (command, status) in zip(running, commands, strict=True):
        said, _ = process.communicate(timeout=30)
        assert process.returncode == status, (command, said)
        line = next((line for line in said.splitlines() if place in line), "")
        assert line.startswith("bad.yaml:"), (command, said)
        assert hint in line
        assert "Traceback" not in said


# --- garbage on every subject ---


def rejected(plane: Plane, said: str) -> list[dict[str, Any]]:
    return [one.event for one in plane.heard("cluster.message-rejected") if said in one.event["reason"]]


def rejections_counted(plane: Plane) -> float:
    text = httpx.get(f"{plane.fleet.runtime()['http']}/metrics").text  # type: ignore[index]
    lines = [line for line in text.splitlines() if line.startswith("navarch_messages_rejected_total{")]
    return sum(float(line.rpartition(" ")[2]) for line in lines)


def still_works(plane: Plane, node: str) -> None:
    """Demand is heard, an agent reports, a wish is fulfilled: nobody fell over."""
    plane.outsider.publish("navarch.metrics.queue.training", b"20")
    plane.settled(2)
    plane.navarch("cordon", node, "--wait")
    plane.navarch("uncordon", node, "--wait")
    seen = plane.node(node).last_heartbeat
    plane.until(lambda: plane.node(node).last_heartbeat > seen, "another heartbeat")


def test_garbage_on_any_subject_is_counted_told_of_once_and_does_no_harm(plane: Plane, node: str) -> None:
    told_of = [
        f"navarch.heartbeat.{node}", "navarch.heartbeat.unknown-1", "navarch.heartbeat.BAD_ID",
        f"navarch.reports.{node}.lifecycle", "navarch.reports.unknown-2.health", "navarch.reports.BAD_2.lifecycle",
        "navarch.metrics.queue.training.slurm", "navarch.metrics.queue.nope", "navarch.metrics.queue.BAD_ID",
        "navarch.metrics.queue.training.a.b",
    ]  # fmt: skip
    told_by_agents = [f"navarch.commands.{node}", f"navarch.probe.{node}", f"navarch.inject.{node}"]
    silent = [
        f"navarch.reports.{node}.health",
        "navarch.plan.training", "navarch.plan.nope", "navarch.plan.BAD_ID", "navarch.wake.provisioner.training", "navarch.wake.health.BAD_ID",
    ]  # fmt: skip
    pids = {process.pid for process in plane.fleet.processes()}
    before = rejections_counted(plane)
    for subject in (*told_of, *told_by_agents, *silent):
        for payload in GARBAGE:
            plane.outsider.publish(subject, payload)
    for subject in (*told_of, *told_by_agents):
        plane.until(lambda subject=subject: rejected(plane, f"on {subject}"), f"a word about {subject}")
    assert rejections_counted(plane) - before >= len(told_of) * (len(GARBAGE) - 2)
    time.sleep(1.0)
    for subject in (*told_of, *told_by_agents):
        assert len(rejected(plane, f"on {subject}:")) == 1, "at most one event a minute for each source"
    assert {process.pid for process in plane.fleet.processes()} == pids
    assert [one.node for one in plane.nodes()] == [node]
    assert not plane.heard("node.failed")
    assert not plane.heard("node.suspect")
    still_works(plane, node)
    plane.outsider.publish("navarch.metrics.queue.training", b"0")
    plane.until(lambda: len(plane.nodes()) == 1, "the pool to be small again", 40)


def test_garbage_among_the_events_hides_no_event(plane: Plane, node: str) -> None:
    for subject in (
        f"navarch.events.node.failed.training.{node}",
        "navarch.events.x",
        "navarch.events.node.failed.B.C.D",
    ):
        for payload in GARBAGE:
            plane.outsider.publish(subject, payload)
    time.sleep(0.5)
    plane.forget()  # the outsider hears its own garbage
    plane.navarch("cordon", node, "--reason", "after the garbage", "--wait")
    plane.navarch("uncordon", node, "--wait")
    reasons = [event["reason"] for event in json.loads(plane.navarch("events", "-o", "json", "--since", "1m"))]
    assert any("after the garbage" in reason for reason in reasons)
    assert "after the garbage" in plane.navarch("explain", node)
    assert plane.node(node).health == "healthy"


@pytest.mark.parametrize(
    "depth",
    [b"-5", b"1e308", b"NaN", b'{"queue_depth": -1}', b'{"queue_depth": 1e30}', b'{"depth": 40}', b"40 jobs", b"4.5"],
)
def test_an_absurd_depth_sizes_nothing(plane: Plane, node: str, depth: bytes) -> None:
    before = rejections_counted(plane)
    plane.outsider.publish("navarch.metrics.queue.training", depth)
    plane.until(lambda: rejections_counted(plane) > before, "the message to be counted", 5)
    assert [one.node for one in plane.nodes()] == [node]


def test_who_asks_with_garbage_is_told_so(plane: Plane, node: str) -> None:
    async def ask() -> None:
        client = await nats.connect(plane.fleet.runtime()["nats"])  # type: ignore[index]
        try:
            for payload in GARBAGE:
                answer = json.loads((await client.request(f"navarch.inject.{node}", payload, timeout=5)).data)
                assert answer["ok"] is False
                assert answer["text"]
                plan = json.loads((await client.request("navarch.plan.nope", payload, timeout=5)).data)
                assert plan["error"] == "there is no pool nope"
        finally:
            await client.close()

    asyncio.run(ask())


# --- reports that are not what they say ---


def report(plane: Plane, node: str, /, **differs: object) -> bytes:
    """A GPU that fell off the bus, as the agent of `node` would report it, but for what differs."""
    known = json.loads(plane.navarch("get", plane.nodes()[0].node, "-o", "json"))
    now = datetime.now(UTC).isoformat()
    said = {
        "type": "report.health.v1", "node": node, "pool": "training", "generation": known["generation"],
        "boot_id": known["registration"]["boot_id"], "sequence": int(time.time()), "at": now,
        "observations": [{"at": now, "event_type": "xid", "code": 79, "pci": "0000:3b:00", "message": xid(FALLEN_OFF)}],
    }  # fmt: skip
    return json.dumps(said | differs).encode()


@pytest.mark.parametrize(
    ("differs", "why"),
    [
        pytest.param({"generation": 0}, "generation", id="no-generation"),
        pytest.param({"node": "training-another"}, "training-another", id="another-node-than-its-subject"),
        pytest.param({"observations": []}, "observations", id="nothing-observed"),
        pytest.param({"at": "yesterday"}, "at", id="no-time"),
        pytest.param({"sequence": -1}, "sequence", id="negative-sequence"),
    ],
)
def test_a_forged_report_condemns_nobody(plane: Plane, node: str, differs: dict[str, Any], why: str) -> None:
    before = rejections_counted(plane)
    plane.outsider.publish(f"navarch.reports.{node}.health", report(plane, node, **differs))
    plane.until(lambda: rejections_counted(plane) > before, f"the report without {why} to be counted", 5)
    assert plane.node(node).health == "healthy"
    assert not plane.heard("node.failed")


def test_a_report_for_an_unknown_node_is_dropped_and_named(plane: Plane, node: str) -> None:
    plane.outsider.publish("navarch.reports.training-nobody.health", report(plane, "training-nobody"))
    plane.until(lambda: rejected(plane, "navarch.reports.training-nobody.health"), "a word about the unknown node")
    assert [one.node for one in plane.nodes()] == [node]
    assert not plane.heard("node.failed")


# --- ids at every door ---

NO_IDS = [
    "UPPER",
    "under_score",
    "-edge",
    "edge-",
    "a" * 64,
    "dot.dot",
    "na*me",
    "na>me",
    "nä",
    "a b",
    "..%2f..",
    "x;y",
]


@pytest.mark.parametrize("name", NO_IDS)
def test_what_is_no_id_is_refused_at_every_door_of_http(plane: Plane, name: str) -> None:
    runtime = plane.fleet.runtime()
    assert runtime is not None
    with httpx.Client(base_url=f"{runtime['http']}/api/v1", timeout=10) as http:
        answers = [
            http.get(f"/nodes/{name}"),
            http.get("/nodes", params={"pool": name}),
            http.get(f"/nodes/{name}/explain"),
            http.post(f"/nodes/{name}/wishes", json={"verb": "cordon"}),
            http.post(f"/nodes/{name}/inject", json={"verb": "busy"}),
            http.get(f"/pools/{name}"),
            http.post(f"/pools/{name}/wishes", json={"verb": "pause"}),
            http.get("/plan", params={"pool": name}),
            http.get("/events", params={"node": name}),
            http.post("/freeze", json={"reason": "x", "pool": name}),
        ]
    for answer in answers:
        assert answer.status_code in (400, 404, 422), (answer.request.url, answer.text)
        assert answer.headers["content-type"].startswith("application/problem+json")
        assert answer.json()["detail"]
    assert not [one for one in json.loads(plane.navarch("status", "-o", "json"))["guards"] if one["active"]]


@pytest.mark.parametrize("name", ["UPPER", "nä", "../x"])
def test_what_is_no_id_is_a_wrong_command(plane: Plane, name: str) -> None:
    for command in (["get", name], ["cordon", name], ["pool", "status", name], ["events", "--node", name]):
        done = plane.fleet.navarch(*command, check=False)
        assert done.returncode == 2, (command, done.stderr)
        assert len(done.stderr.splitlines()) == 1
        assert "Traceback" not in done.stderr


# --- a file that changes while it is in force ---


def test_a_changed_file_is_taken_over_and_a_bad_one_leaves_the_old_in_force(plane: Plane, node: str) -> None:
    file = plane.fleet.config
    good = CONFIG.replace("max_nodes: 3", "max_nodes: 2").replace("jobs_per_node: 10", "jobs_per_node: 5")
    second = "  second: {min_nodes: 1, max_nodes: 1}\n"
    file.write_text(good + second)
    plane.settled(1, "second")
    plane.outsider.publish("navarch.metrics.queue.training", b"10")
    plane.settled(2)

    plane.forget()
    file.write_text(good + second + "  third: {min_nodes: 5, max_nodez: 1}\n")
    refused = plane.hears("cluster.config-rejected").event
    assert "unknown key 'max_nodez'; did you mean 'max_nodes'?" in refused["reason"]
    assert f"{file.name}:9:" in refused["reason"]
    assert {pool["pool"] for pool in json.loads(plane.navarch("pools", "-o", "json"))} == {"training", "second"}
    assert plane.living("second") == {one.node for one in plane.nodes("second")}

    plane.forget()
    file.write_text(good)
    plane.hears("cluster.config-applied")
    plane.hears("pool.retiring")
    survivors = plane.living("second")
    assert len(survivors) == 1
    plane.navarch("terminate", min(survivors), "--yes", "--dry-run")
    states = {pool["pool"]: pool["retiring"] for pool in json.loads(plane.navarch("pools", "-o", "json"))}
    assert states == {"training": False, "second": True}
    time.sleep(2)
    assert plane.living("second") == survivors, "nothing of a retiring pool is terminated"
    assert not plane.heard("node.terminating", min(survivors))


def test_a_file_that_is_half_written_or_gone_for_a_moment_does_no_harm(plane: Plane) -> None:
    file = plane.fleet.config
    kept = file.read_text()
    plane.forget()
    file.write_text(kept[: len(kept) // 2])
    time.sleep(0.3)
    file.unlink()
    time.sleep(0.3)
    new = file.with_suffix(".new")
    new.write_text(kept.replace("max_nodes: 2", "max_nodes: 3"))
    new.replace(file)
    plane.hears("cluster.config-applied")
    found = json.loads(plane.navarch("pool", "status", "training", "-o", "json"))
    assert found["max_nodes"] == 3
