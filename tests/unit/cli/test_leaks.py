"""`navarch gc`, `adopt` and `safe-mode leave` against a server that answers what a test tells it to."""

import json
from typing import Any

import pytest

from unit.cli.test_commands import AT, Server, navarch, problem
from unit.cli.test_commands import server as server  # noqa: PLC0414 - the fixture


def leak(id_: str, **fields: Any) -> dict[str, Any]:
    known = {
        "provider": "cloud", "instance_id": id_, "kind": "unrecorded", "ours": True, "installation": "ours", "node": "n-1",
        "price_per_hour": 2.5, "launched_at": AT, "since": AT, "leaked_at": AT, "would": "report", "reason": "no record",
    }  # fmt: skip
    return known | fields


FOREIGN = leak("i-9", kind="foreign", ours=False, installation="theirs", leaked_at=None, would="leave")


def offers(server: Server, *leaks: dict[str, Any]) -> None:
    server.routes["GET leaks"] = (200, {"items": list(leaks), "dollars_per_hour": 5.0, "as_of": AT})


def accepts(server: Server, verb: str, *, left: list[dict[str, Any]] | None = None) -> None:
    """Accepts a wish about leaked machines; from then on those in `left` are there."""

    def accept(body: dict[str, Any]) -> tuple[int, Any]:
        there = [{**one, "asked": body["request_id"]} for one in left or []]
        offers(server, *there)
        return 202, {
            "request_id": body["request_id"], "event_id": "1-0", "revision": 1, "verb": verb, "machines": body["machines"],
        }  # fmt: skip

    server.routes[f"POST leaks/{verb}"] = accept


def asked(server: Server, path: str) -> list[dict[str, Any]]:
    return [body for seen, body in server.seen if seen == f"POST {path}"]


def test_a_dry_run_shows_what_is_leaked_and_what_it_costs_and_asks_for_nothing(server: Server) -> None:
    offers(server, leak("i-1"), leak("i-2", kind="ended", would="collect"), FOREIGN)
    result = navarch(server, "gc", "--dry-run")
    assert result.exit_code == 0
    for said in ("cloud", "i-1", "unrecorded", "collect", "2.50", "2 machines leaked, 5.00 $/h"):
        assert said in result.output
    assert {seen for seen, _ in server.seen} == {"GET leaks"}
    found = json.loads(navarch(server, "gc", "--dry-run", "-o", "json").output)
    assert [one["instance_id"] for one in found] == ["i-1", "i-2", "i-9"]


def test_nothing_leaked_is_said(server: Server) -> None:
    offers(server)
    assert navarch(server, "gc", "--dry-run").output == "nothing is leaked\n"
    assert navarch(server, "gc", "--yes").output == "nothing to collect\n"
    assert navarch(server, "adopt", "--all").output == "nothing to adopt\n"


def test_without_names_only_what_a_record_proves_useless_is_ended(server: Server) -> None:
    offers(server, leak("i-1"), leak("i-2", kind="ended"), leak("i-3", kind="duplicate"), FOREIGN)
    accepts(server, "gc")
    result = navarch(server, "gc", "--yes", "--reason", "paid enough")
    assert (result.exit_code, result.output) == (0, "cloud/i-2: ended\ncloud/i-3: ended\n")
    [body] = asked(server, "leaks/gc")
    assert (body["machines"], body["reason"]) == (["cloud/i-2", "cloud/i-3"], "paid enough")


def test_a_machine_that_nobody_remembers_must_be_named_to_be_ended(server: Server) -> None:
    offers(server, leak("i-1"))
    assert "1 machine without a record must be named" in navarch(server, "gc", "--yes").output
    accepts(server, "gc")
    assert navarch(server, "gc", "i-1", "--yes").output == "cloud/i-1: ended\n"


def test_ending_and_adopting_ask_and_need_yes_where_nobody_can_be_asked(server: Server) -> None:
    offers(server, leak("i-1"))
    for verb in ("gc", "adopt"):
        result = navarch(server, verb, "i-1")
        assert (result.exit_code, "add --yes" in result.stderr) == (2, True)
        assert asked(server, f"leaks/{verb}") == []


@pytest.mark.parametrize(("code", "status"), [("frozen", 4), ("not-adopted", 1)])
def test_a_machine_that_is_kept_is_named_with_its_reason(server: Server, code: str, status: int) -> None:
    offers(server, leak("i-1"), leak("i-2"))
    accepts(server, "gc", left=[leak("i-1", code=code, reason="ada froze the cluster")])
    result = navarch(server, "gc", "i-1", "i-2", "--yes")
    assert (result.exit_code, "cloud/i-2: ended" in result.output) == (status, True)
    assert "cloud/i-1: not ended: ada froze the cluster" in result.stderr


def test_a_machine_that_is_not_gone_in_time_is_named(server: Server) -> None:
    offers(server, leak("i-1"))
    accepts(server, "gc", left=[leak("i-1", would="collect")])
    result = navarch(server, "gc", "i-1", "--yes", "--wait-timeout", "1s")
    assert (result.exit_code, "cloud/i-1: not ended after 1s" in result.stderr) == (3, True)


def test_names_that_mean_none_or_several_are_errors(server: Server) -> None:
    offers(server, leak("i-1"), leak("i-1", provider="other"))
    assert navarch(server, "gc", "i-7", "--yes").exit_code == 1
    result = navarch(server, "gc", "i-1", "--yes")
    assert (result.exit_code, "cloud/i-1, other/i-1" in result.stderr) == (2, True)
    assert navarch(server, "adopt", "i-1", "--all").exit_code == 2


def test_in_safe_mode_the_one_unknown_installation_is_taken_over(server: Server) -> None:
    offers(server, FOREIGN)
    server.routes["POST installation/adopt"] = (
        200, {"installation": "theirs", "before": "ours", "event_id": "1-0", "revision": 1},
    )  # fmt: skip
    assert navarch(server, "adopt").exit_code == 2
    result = navarch(server, "adopt", "--yes", "--reason", "moved")
    assert (result.exit_code, "installation theirs is ours" in result.output) == (0, True)
    assert asked(server, "installation/adopt") == [{"installation": "theirs", "reason": "moved"}]


def test_of_several_unknown_installations_one_must_be_named(server: Server) -> None:
    offers(server, FOREIGN, {**FOREIGN, "installation": "others"})
    result = navarch(server, "adopt", "--yes")
    assert (result.exit_code, "--installation ID" in result.stderr) == (2, True)
    offers(server)
    assert navarch(server, "adopt", "--yes").exit_code == 1


def test_safe_mode_is_left_with_a_reason(server: Server) -> None:
    safe = {"since": AT, "code": "store-lost", "reason": "the store is empty"}
    server.routes["POST safe-mode/leave"] = (200, {"left": safe, "event_id": "1-0", "revision": 1})
    assert navarch(server, "safe-mode", "leave").exit_code == 2
    assert navarch(server, "safe-mode", "leave", "--reason", " ", "--yes").exit_code == 2
    result = navarch(server, "safe-mode", "leave", "--reason", "counted", "--yes")
    assert (result.exit_code, result.output) == (0, "safe mode is left, event 1-0\n")
    assert asked(server, "safe-mode/leave") == [{"reason": "counted"}]
    server.routes["POST safe-mode/leave"] = (409, problem(409, "not-in-safe-mode", "safe mode is not on"))
    assert navarch(server, "safe-mode", "leave", "--reason", "x", "--yes").exit_code == 1
