"""The `navarch` command against a server that answers what a test tells it to: output, questions, exit statuses."""

import json
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from navarch_cli.main import app

Answer = tuple[int, Any]
Routes = dict[str, Answer | Callable[[dict[str, Any]], Answer]]
AT = "2026-01-01T12:00:00Z"
NODE = {
    "node": "training-k7x2mpd", "pool": "training", "status": "active", "health": "healthy", "phase": "active",
    "provider": "local", "instance_type": "h100-8x", "gpus": 8, "created_at": AT, "last_heartbeat": None,
    "reason": "validated [ok]",
}  # fmt: skip
ACCEPTED = {"request_id": "r1", "event_id": "0001-0", "revision": 1, "verb": "cordon", "node": "training-k7x2mpd"}


class Server(ThreadingHTTPServer):
    daemon_threads = True
    routes: Routes
    seen: list[tuple[str, dict[str, Any]]]
    headers: list[dict[str, str]]


class Handler(BaseHTTPRequestHandler):
    server: Server

    def do_GET(self) -> None:
        self._answer({})

    def do_POST(self) -> None:
        self._answer(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))

    def _answer(self, body: dict[str, Any]) -> None:
        path = self.path.removeprefix("/api/v1/")
        self.server.seen.append((f"{self.command} {path}", body))
        self.server.headers.append(dict(self.headers))
        found = self.server.routes.get(f"{self.command} {path.partition('?')[0]}", (404, problem(404, "not-found")))
        status, answer = found(body) if callable(found) else found
        data = json.dumps(answer).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *_: Any) -> None: ...


def problem(status: int, code: str, detail: str = "because") -> dict[str, Any]:
    return {"title": "no", "status": status, "code": code, "detail": detail}


@pytest.fixture
def server() -> Iterator[Server]:
    served = Server(("127.0.0.1", 0), Handler)
    served.routes, served.seen, served.headers = {}, [], []
    thread = Thread(target=served.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield served
    served.shutdown()
    thread.join()
    served.server_close()


def navarch(server: Server | str, *args: str, stdin: str | None = None) -> Result:
    url = server if isinstance(server, str) else f"http://127.0.0.1:{server.server_address[1]}"
    return CliRunner().invoke(app, ["-s", url, *args], input=stdin)


def test_list_shows_a_table_with_reasons_as_they_are(server: Server) -> None:
    server.routes["GET nodes"] = (200, {"items": [NODE], "as_of": AT})
    result = navarch(server, "list")
    assert result.exit_code == 0
    assert "training-k7x2mpd" in result.output
    assert "validated [ok]" in result.output
    assert "never" in result.output


def test_options_may_stand_before_the_command_or_after_it(server: Server) -> None:
    server.routes["GET nodes"] = (200, {"items": [NODE], "as_of": AT})
    after = navarch(server, "list", "-o", "json").output
    before = navarch(server, "-o", "json", "list").output
    assert json.loads(after) == json.loads(before)
    assert json.loads(after)[0]["node"] == "training-k7x2mpd"
    assert json.loads(after)[0]["created_at"] == AT


def test_filters_reach_the_server(server: Server) -> None:
    server.routes["GET nodes"] = (200, {"items": [], "as_of": AT})
    result = navarch(server, "list", "--status", "NODE_STATUS_ACTIVE", "--label", "team=a", "--all")
    assert (result.exit_code, result.output) == (0, "no nodes match\n")
    query = server.seen[0][0]
    assert "status=active" in query
    assert "label=team%3Da" in query
    assert "all=1" in query


def test_an_unknown_status_is_a_wrong_command_that_names_the_right_ones(server: Server) -> None:
    result = navarch(server, "list", "--status", "alive")
    assert result.exit_code == 2
    assert "'alive' is not one of provisioning, active" in result.output


def test_a_server_that_is_not_there_is_one_line_and_a_hint() -> None:
    result = navarch("http://127.0.0.1:9", "list")
    assert result.exit_code == 1
    assert "navarch up" in result.output
    assert len(result.output.splitlines()) == 1


def test_cordon_sends_the_reason_and_who_asks(server: Server) -> None:
    server.routes["POST nodes/training-k7x2mpd/wishes"] = (202, ACCEPTED)
    result = navarch(server, "cordon", "training-k7x2mpd", "--reason", "fan noise")
    assert result.exit_code == 0
    assert "event 0001-0" in result.output
    assert server.seen[0][1]["reason"] == "fan noise"
    assert server.headers[0]["X-Navarch-Actor"].startswith("operator:")


@pytest.mark.parametrize("verb", ["drain", "replace", "terminate"])
def test_grave_commands_need_yes_off_a_terminal(server: Server, verb: str) -> None:
    result = navarch(server, verb, "training-k7x2mpd")
    assert result.exit_code == 2
    assert "--yes" in result.output
    assert server.seen == []


def test_a_dry_run_asks_nothing_and_changes_nothing(server: Server) -> None:
    server.routes["POST nodes/training-k7x2mpd/wishes"] = (
        200,
        {"verb": "terminate", "node": "training-k7x2mpd", "would": "drain it and end its machine"},
    )
    result = navarch(server, "terminate", "training-k7x2mpd", "--dry-run")
    assert (result.exit_code, result.output) == (0, "drain it and end its machine\n")
    assert "dry_run=1" in server.seen[0][0]


@pytest.mark.parametrize(
    ("status", "code", "exit_code"),
    [
        (409, "frozen", 4),
        (409, "busy", 1),
        (404, "not-found", 1),
        (403, "not-allowed", 5),
        (401, "not-authenticated", 5),
        (422, "invalid-id", 2),
        (500, "internal", 1),
    ],
)
def test_a_refusal_has_an_exit_status_of_its_own(server: Server, status: int, code: str, exit_code: int) -> None:
    server.routes["POST nodes/training-k7x2mpd/wishes"] = (status, problem(status, code, "the reason why"))
    result = navarch(server, "terminate", "training-k7x2mpd", "--yes")
    assert result.exit_code == exit_code
    assert "the reason why" in result.output


def test_one_refused_node_does_not_keep_the_others_from_being_asked(server: Server) -> None:
    server.routes["POST nodes/a/wishes"] = (409, problem(409, "busy", "work runs there"))
    server.routes["POST nodes/b/wishes"] = (202, {**ACCEPTED, "node": "b"})
    result = navarch(server, "cordon", "a", "b")
    assert result.exit_code == 1
    assert "a: work runs there" in result.output
    assert "b: cordon asked for" in result.output


def test_nodes_are_chosen_by_label(server: Server) -> None:
    server.routes["GET nodes"] = (200, {"items": [NODE], "as_of": AT})
    server.routes["POST nodes/training-k7x2mpd/wishes"] = (202, ACCEPTED)
    assert navarch(server, "cordon", "-l", "team=a").exit_code == 0
    assert navarch(server, "cordon", "-l", "team=a", "x").exit_code == 2
    assert navarch(server, "cordon").exit_code == 2


def test_wait_tells_what_came_of_it(server: Server) -> None:
    server.routes["POST nodes/training-k7x2mpd/wishes"] = (202, ACCEPTED)
    answer = {"at": AT, "outcome": "done", "code": "cordoned", "reason": "cordoned for operator:ada"}
    server.routes["GET nodes/training-k7x2mpd/wishes/r1"] = (
        200, {"request_id": "r1", "state": "answered", "answer": answer},
    )  # fmt: skip
    result = navarch(server, "cordon", "training-k7x2mpd", "--wait")
    assert result.exit_code == 0
    assert "cordoned for operator:ada" in result.output


def test_waiting_in_vain_has_an_exit_status_of_its_own(server: Server) -> None:
    server.routes["POST nodes/training-k7x2mpd/wishes"] = (202, ACCEPTED)
    server.routes["GET nodes/training-k7x2mpd/wishes/r1"] = (200, {"request_id": "r1", "state": "open"})
    result = navarch(server, "cordon", "training-k7x2mpd", "--wait", "--wait-timeout", "1s")
    assert result.exit_code == 3
    assert "it goes on" in result.output


def test_explain_falls_back_to_a_pool_of_that_name(server: Server) -> None:
    server.routes["GET pools/training/explain"] = (
        200,
        {
            "pool": "training", "status": "running", "as_of": AT,
            "items": [{"at": AT, "actor": "autoscaler", "code": "queue-depth", "text": "40 queued", "event": "pool.resized"}],
        },
    )  # fmt: skip
    result = navarch(server, "explain", "training")
    assert result.exit_code == 0
    assert "40 queued" in result.output


def test_what_is_neither_node_nor_pool_is_said_once(server: Server) -> None:
    result = navarch(server, "explain", "nope")
    assert result.exit_code == 1
    assert "no node or pool 'nope'" in result.output


def test_plan_exits_with_two_when_something_would_change(server: Server) -> None:
    step = {"pool": "training", "act": "launch", "reason": "desired is 3, there are 2", "cost_per_hour_delta": 2.5}
    server.routes["GET plan"] = (200, {"steps": [step], "changes": True})
    result = navarch(server, "plan", "--exit-code")
    assert result.exit_code == 2
    assert "+2.50" in result.output
    assert navarch(server, "plan").exit_code == 0


def test_scale_says_when_it_is_refused(server: Server) -> None:
    refusal = problem(422, "out-of-bounds", "9 is over max_nodes 5") | {"field": "nodes"}
    server.routes["POST pools/training/wishes"] = (422, refusal)
    result = navarch(server, "pool", "scale", "training", "--nodes", "9")
    assert result.exit_code == 1
    assert "over max_nodes 5" in result.output


def test_a_busy_node_is_said_once_and_the_flag_is_named(server: Server) -> None:
    node = NODE["node"]
    refusal = problem(409, "busy", f"{node} is busy: processes hold GPU 0; drain it first, or use force")
    server.routes[f"POST nodes/{node}/wishes"] = (409, refusal)
    result = navarch(server, "terminate", node, "--yes")
    assert result.exit_code == 1
    assert result.output == f"navarch: {node} is busy: processes hold GPU 0; drain it first, or use --force\n"


def test_a_name_that_would_be_another_path_is_a_wrong_command(server: Server) -> None:
    assert navarch(server, "get", "../config").exit_code == 2
    assert server.seen == []


@pytest.mark.parametrize("text", ["5", "m", "-5m", "5x", "99999d"])
def test_a_bad_duration_is_a_wrong_command(server: Server, text: str) -> None:
    result = navarch(server, "freeze", "--reason", "x", "--for", text)
    assert result.exit_code == 2
    assert server.seen == []


def test_events_are_json_as_they_were_sent(server: Server) -> None:
    event = {
        "type": "node.failed.v1", "id": "1-0", "at": AT, "cluster": "default", "pool": "training", "node": "n1",
        "reason": "Xid 79", "code": "xid-79", "actor": "health", "failure_id": "f1",
    }  # fmt: skip
    server.routes["GET events"] = (200, {"items": [event], "as_of": AT})
    assert json.loads(navarch(server, "events", "-o", "json").output) == [event]
    assert "Xid 79" in navarch(server, "events").output


def test_completion_names_its_shells() -> None:
    assert "_NAVARCH_COMPLETE" in navarch("http://127.0.0.1:9", "completion", "bash").output
    assert navarch("http://127.0.0.1:9", "completion", "tcsh").exit_code == 2


def test_help_describes_commands_of_other_packages_without_importing_them() -> None:
    result = navarch("http://127.0.0.1:9", "--help")
    assert "Run a whole fleet here" in result.output


GUARD = {
    "name": "hold/node/training-k7x2mpd", "kind": "hold", "active": True, "level": "all", "pool": "training",
    "node": "training-k7x2mpd", "number": 3, "actor": "operator:ada", "reason": "fans", "at": AT, "until": AT,
    "event_id": "0001-0", "revision": 1,
}  # fmt: skip


def test_a_hold_lasts_four_hours_unless_told_and_says_until_when(server: Server) -> None:
    server.routes["POST hold"] = (200, GUARD)
    result = navarch(server, "hold", "training-k7x2mpd", "--reason", "fans")
    assert result.exit_code == 0, result.output
    assert "training-k7x2mpd is held until 2026" in result.output
    assert server.seen == [("POST hold", {"target": "training-k7x2mpd", "reason": "fans", "for_s": 14400.0})]


def test_a_hold_needs_a_reason(server: Server) -> None:
    result = navarch(server, "hold", "training-k7x2mpd")
    assert result.exit_code == 2
    assert "--reason" in result.output


def test_a_guard_that_the_store_has_not_taken_yet_is_said_to_be_told_later(server: Server) -> None:
    server.routes["POST release"] = (200, {**GUARD, "active": False, "event_id": "", "revision": 0})
    result = navarch(server, "release", "training-k7x2mpd")
    assert "is no longer held, its event follows when the store is back" in result.output


def test_what_is_refused_by_a_hold_has_its_own_exit_status_and_says_how_to_go_on(server: Server) -> None:
    detail = "training-k7x2mpd is held by operator:ada until 2026-01-01 16:00 UTC: fans; release it, or use force"
    server.routes["POST nodes/training-k7x2mpd/wishes"] = (409, problem(409, "held", detail))
    result = navarch(server, "terminate", "training-k7x2mpd", "--yes")
    assert result.exit_code == 4
    assert "release it, or use --force" in result.output


CHANGE = {
    "id": "c-0123456789",
    "pool": "training",
    "node": "training-k7x2mpd",
    "act": "replace",
    "text": "replace it",
    "since": AT,
}


def test_an_approval_names_the_change_and_waits_for_its_answer_if_told(server: Server) -> None:
    server.routes["POST changes/c-0123456789/wishes"] = (202, {**ACCEPTED, "verb": "approve", "pool": "training"})
    answer = {"at": AT, "outcome": "done", "code": "approved", "reason": "approved, and done"}
    server.routes["GET pools/training/wishes/r1"] = (200, {"request_id": "r1", "state": "answered", "answer": answer})
    result = navarch(server, "approve", "c-0123456789", "--reason", "go", "--wait")
    assert result.exit_code == 0, result.output
    assert "c-0123456789: approve asked for, event 0001-0" in result.output
    assert "approved, and done" in result.output
    assert server.seen[0][1]["verb"] == "approve"


def test_an_approved_configuration_is_of_no_pool_and_waited_for_by_nobody(server: Server) -> None:
    server.routes["POST changes/c-0123456789/wishes"] = (202, {**ACCEPTED, "verb": "approve", "node": "", "pool": ""})
    result = navarch(server, "approve", "c-0123456789", "--wait")
    assert (result.exit_code, result.output) == (0, "c-0123456789: approve done, event 0001-0\n")


TAKING = {
    "pool": "training", "nodes": 3, "of": 4, "why": "max_nodes 4 -> 1", "named": [], "too_much": True,
}  # fmt: skip


@pytest.mark.parametrize(
    ("preview", "said", "status"),
    [
        pytest.param({"takings": [TAKING], "held": True}, "would wait for `navarch approve`", 2, id="too much"),
        pytest.param({"takings": [], "held": False}, "at once, as generation 8", 0, id="nothing"),
        pytest.param({"takings": [], "held": False, "in_force": True}, "as generation 7", 0, id="in force"),
        pytest.param({"takings": [], "held": False, "retires": ["old"]}, "pool old leaves the file", 0, id="retiring"),
    ],
)
def test_plan_says_what_a_configuration_would_take(
    server: Server, tmp_path: Path, preview: dict[str, Any], said: str, status: int
) -> None:
    server.routes["POST config/preview"] = (200, {"generation": 7, "in_force": False, **preview})
    file = tmp_path / "new.yaml"
    file.write_text("pools: {}\n")
    result = navarch(server, "plan", "--config", str(file), "--exit-code")
    assert said in result.output
    assert result.exit_code == status
    assert server.seen[0][1] == {"text": "pools: {}\n", "source": "new.yaml"}


def test_plan_of_a_configuration_that_is_wrong_says_where(server: Server, tmp_path: Path) -> None:
    server.routes["POST config/preview"] = (422, problem(422, "bad-config", "new.yaml:1:1: unknown key 'pool'"))
    (tmp_path / "new.yaml").write_text("pool: {}\n")
    result = navarch(server, "plan", "-c", str(tmp_path / "new.yaml"))
    assert result.exit_code == 1
    assert "new.yaml:1:1: unknown key 'pool'" in result.output
    assert navarch(server, "plan", "-c", str(tmp_path / "none.yaml")).exit_code == 2
    assert navarch(server, "plan", "training", "-c", str(tmp_path / "new.yaml")).exit_code == 2


def test_a_word_about_several_changes_ends_with_the_worst_status_of_them(server: Server) -> None:
    server.routes["POST changes/c-0123456789/wishes"] = (202, {**ACCEPTED, "verb": "cancel", "pool": "training"})
    result = navarch(server, "cancel", "c-9999999999", "c-0123456789")
    assert result.exit_code == 1
    assert "c-9999999999: " in result.output
    assert "c-0123456789: cancel asked for" in result.output


def test_a_pool_shows_its_open_breaker_its_limits_and_what_waits(server: Server) -> None:
    breaker = {"since": AT, "code": "too-many-unhealthy", "reason": "3 of 5 nodes are unhealthy", "retry_at": AT}
    server.routes["GET pools/training"] = (
        200,
        {
            "pool": "training", "as_of": AT, "automation": "approve", "changes": [CHANGE],
            "supply": {"breaker": breaker, "limits": [{"key": "limits.nodes", "since": AT}]},
        },
    )  # fmt: skip
    result = navarch(server, "pool", "status", "training")
    assert result.exit_code == 0, result.output
    for text in ("3 of 5 nodes are unhealthy; a canary at", "limits.nodes reached for", "approve", "c-0123456789"):
        assert text in result.output, text


def test_closing_a_breaker_is_a_wish_about_the_pool(server: Server) -> None:
    server.routes["POST pools/training/wishes"] = (
        202,
        {**ACCEPTED, "verb": "close-breaker", "node": "", "pool": "training"},
    )
    result = navarch(server, "pool", "close-breaker", "training", "--reason", "it was the policy")
    assert result.exit_code == 0, result.output
    assert server.seen[0][1]["verb"] == "close-breaker"


STATUS = {
    "cluster": "test", "installation": "i", "version": "1", "instance": "gw-1-a", "ready": True, "as_of": AT,
    "outbox_events": 2, "outbox_oldest_s": 90.0,
    "backlog": [{"stream": "S", "consumer": "health", "pending": 0}, {"stream": "S", "consumer": "provisioner", "pending": None}],
    "leases": [{"name": "provisioner/training", "owner": "p-1-a", "expires_at": AT, "fence": 4711}],
    "verdicts_suspended": {"h-1-a": "the bus was away"},
    "members": [
        {"service": "provisioner", "instance": "p-1-a", "host": "p", "since": AT, "at": AT, "ready": True, "holds": ["training"],
         "results": [{"name": "provisioner/sweep", "at": AT, "took_s": 0.5, "outcome": "failed", "error": "cloud away", "failures": 3}]},
    ],
}  # fmt: skip


def test_status_shows_copies_what_they_hold_and_what_went_wrong(server: Server) -> None:
    server.routes["GET status"] = (200, STATUS)
    said = navarch(server, "status").output
    assert "2 events waiting, the oldest for 1m30s" in said
    assert "health 0, provisioner unknown" in said
    assert "h-1-a: the bus was away" in said
    assert "provisioner/sweep failed 3 times: cloud away" in said
    assert "4711" not in said
    wide = navarch(server, "status", "-o", "wide").output
    assert "4711" in wide
    assert "500 ms" in wide
    assert json.loads(navarch(server, "status", "-o", "json").output)["members"][0]["holds"] == ["training"]


LETTER = {
    "sequence": 7, "at": AT, "code": "undecodable", "error": "no JSON [at all]", "subject": "navarch.reports.n1.health", "deliveries": 1,
}  # fmt: skip


def test_dead_letters_are_listed_and_put_back(server: Server) -> None:
    server.routes["GET dead"] = (200, {"items": [LETTER], "as_of": AT})
    assert "no JSON [at all]" in navarch(server, "events", "--dead", "--since", "2h").output
    assert "since=" in server.seen[0][0]
    assert json.loads(navarch(server, "events", "--dead", "-o", "json").output)[0]["sequence"] == 7
    server.routes["POST dead/replay"] = (200, {"items": [{"sequence": 7, "outcome": "stored"}], "as_of": AT})
    done = navarch(server, "events", "--dead", "--replay", "7", "--yes")
    assert (done.exit_code, "stored" in done.output) == (0, True)
    assert server.seen[-1][1]["sequences"] == [7]
    navarch(server, "events", "--dead", "--replay", "all", "--yes")
    assert server.seen[-1][1]["all"] is True


def test_a_dead_letter_that_was_not_put_back_is_a_failure(server: Server) -> None:
    refused = {"sequence": 7, "outcome": "refused", "detail": "no"}
    server.routes["POST dead/replay"] = (200, {"items": [refused], "as_of": AT})
    assert navarch(server, "events", "--dead", "--replay", "7", "--yes").exit_code == 1


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("--replay", "7"), "--replay needs --dead"),
        (("--dead", "--replay", "7"), "add --yes"),
        (("--dead", "--replay", "x,7", "--yes"), "expected sequences"),
        (("--dead", "--follow"), "--dead goes with"),
        (("--dead", "--pool", "training"), "--dead goes with"),
    ],
)
def test_a_wrong_word_about_dead_letters_is_a_wrong_command(
    server: Server, arguments: tuple[str, ...], says: str
) -> None:
    result = navarch(server, "events", *arguments)
    assert (result.exit_code, says in result.output) == (2, True), result.output


def test_the_audit_shows_who_did_what_and_what_changed(server: Server) -> None:
    entry = {
        "id": "7-1", "at": AT, "actor": "operator:ada", "action": "freeze", "result": "done", "reason": "cut-over [2]",
        "before": {"active": "False"}, "after": {"active": "True", "level": "all"}, "request_id": "r-1",
    }  # fmt: skip
    server.routes["GET audit"] = (200, {"items": [entry], "as_of": AT, "truncated": True})
    said = navarch(server, "audit", "--actor", "operator:ada", "--node", "n1", "--since", "2h").output
    assert "cut-over [2]" in said
    assert "there are more than 100" in said
    assert "actor=operator%3Aada" in server.seen[0][0]
    assert "active: False → True, level: - → all" in navarch(server, "audit", "-o", "wide").output
    assert json.loads(navarch(server, "audit", "-o", "json").output)[0]["request_id"] == "r-1"
    server.routes["GET audit"] = (200, {"items": [], "as_of": AT})
    assert navarch(server, "audit", "-o", "json").output == "[]\n"
