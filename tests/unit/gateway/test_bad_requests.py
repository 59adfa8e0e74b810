"""Whatever comes in at the HTTP door, the answer is a problem that names the mistake, never a 500."""

import gzip
import json
from typing import Any

import httpx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from support.gateway_world import GatewayWorld, gateway_world

WISH = "/nodes/n1/wishes"
JSON = {"Content-Type": "application/json"}


@pytest.mark.parametrize(
    ("method", "path", "options", "status", "code", "says"),
    [
        ("GET", "/nothing", {}, 404, "not-found", "/api/v1/nothing"),
        ("GET", "/nodes/", {}, 404, "not-found", "/api/v1/nodes/"),
        ("DELETE", "/nodes/n1", {}, 405, "method-not-allowed", "DELETE"),
        ("POST", "/nodes", {}, 405, "method-not-allowed", "POST"),
        ("GET", "/nodes/n9", {}, 404, "not-found", "there is no node 'n9'"),
        ("GET", "/nodes/Node_1", {}, 400, "bad-id", "'Node_1' is no node id"),
        ("GET", "/nodes/n1%0A", {}, 404, "not-found", "/api/v1/nodes/n1"),
        ("GET", "/pools/traning", {}, 404, "not-found", "did you mean 'training'?"),
        ("GET", "/pools/*", {}, 400, "bad-id", "no pool id"),
        ("GET", "/nodes?polo=x", {}, 400, "unknown-parameter", "did you mean 'pool'?"),
        ("GET", "/nodes?pool=a&pool=b", {}, 400, "repeated-parameter", "pool is given more than once"),
        ("GET", "/nodes?pool=A", {}, 400, "bad-id", "'A' is no pool id"),
        ("GET", "/nodes?status=actve", {}, 400, "bad-parameter", "did you mean 'active'?"),
        ("GET", "/nodes?health=fine", {}, 400, "bad-parameter", "none of unknown, healthy"),
        ("GET", "/nodes?label=x", {}, 400, "bad-parameter", "KEY=VALUE"),
        ("GET", "/nodes?all=maybe", {}, 400, "bad-parameter", "neither 1 nor 0"),
        ("GET", "/nodes?limit=0", {}, 400, "bad-limit", "not between 1 and 5000"),
        ("GET", "/nodes?limit=x", {}, 400, "bad-parameter", "no whole number"),
        ("GET", "/nodes?limit=٣", {}, 400, "bad-parameter", "no whole number"),
        ("GET", "/nodes?page_token=..", {}, 400, "bad-page-token", "none that an answer gave"),
        ("GET", "/nodes/n1/explain?since=tomorrow", {}, 400, "bad-since", "2h"),
        ("GET", "/nodes/n1/explain?since=2026-01-01T00:00:00", {}, 400, "bad-since", "is no time"),
        ("GET", "/events?type=Node", {}, 400, "bad-type", "node.failed"),
        ("GET", "/events?limit=99999", {}, 400, "bad-parameter", "up to 5000"),
        ("GET", "/events?after=1", {}, 400, "bad-parameter", "follow=1"),
        ("GET", "/events?follow=1&limit=1", {}, 400, "bad-parameter", "limit"),
        ("GET", "/nodes/n1/wishes/none", {}, 404, "not-found", "no wish 'none'"),
        ("GET", "/plan?pool=nobody", {}, 404, "not-found", "no pool 'nobody'"),
        ("POST", WISH, {"json": {"verb": "reboot"}}, 422, "bad-field", "verb"),
        ("POST", WISH, {"json": {"verb": "cordon", "raeson": "x"}}, 422, "unknown-field", "did you mean 'reason'?"),
        ("POST", WISH, {"json": {}}, 422, "bad-field", "verb"),
        ("POST", WISH, {"json": {"verb": "cordon", "reason": "a\u001bb"}}, 422, "bad-field", "reason"),
        ("POST", WISH, {"json": {"verb": "cordon", "reason": "x" * 513}}, 422, "bad-field", "reason"),
        ("POST", WISH, {"json": {"verb": "cordon", "request_id": "a b"}}, 422, "bad-field", "request_id"),
        ("POST", WISH, {"json": {"verb": "cordon", "expires_in_s": 1e30}}, 422, "bad-field", "expires_in_s"),
        ("POST", WISH, {"json": {"verb": "cordon", "force": 1}}, 422, "bad-field", "force"),
        ("POST", WISH, {"json": ["cordon"]}, 422, "bad-body", "expected a JSON object, found list"),
        ("POST", WISH, {"content": b"{", "headers": JSON}, 400, "bad-json", "no JSON"),
        ("POST", WISH, {"content": b'{"verb": NaN}', "headers": JSON}, 400, "bad-json", "no JSON"),
        ("POST", WISH, {"content": b"[" * 100_000, "headers": JSON}, 400, "bad-json", "no JSON"),
        ("POST", WISH, {"content": b'{"verb":"cordon"}'}, 415, "unsupported-media-type", "application/json"),
        ("POST", WISH, {"content": b" " * (1 << 20) + b"{}", "headers": JSON}, 413, "too-large", "1048576 bytes"),
        ("POST", "/pools/training/wishes", {"json": {"verb": "scale", "nodes": -1}}, 422, "bad-field", "nodes"),
        ("POST", "/pools/training/wishes", {"json": {"verb": "scale", "nodes": 10**9}}, 422, "out-of-bounds", "nodes"),
        ("POST", "/pools/training/wishes", {"json": {"verb": "scale", "nodes": 10**30}}, 422, "bad-field", "nodes"),
        ("POST", "/pools/training/wishes", {"json": {"verb": "scale", "nodes": 1.5}}, 422, "bad-field", "nodes"),
        ("POST", "/freeze", {"json": {"reason": "x", "level": "some"}}, 422, "bad-field", "level"),
        ("POST", "/freeze", {"json": {}}, 422, "bad-field", "reason"),
        ("POST", "/freeze", {"json": {"reason": "x", "pool": "nobody"}}, 404, "not-found", "no pool 'nobody'"),
        ("POST", "/freeze", {"json": {"reason": "x", "pool": "A/b"}}, 422, "bad-field", "pool"),
        ("POST", WISH, {"json": {"verb": "cordon"}, "headers": {"Origin": "http://evil.example"}}, 403, "cross-origin", "evil"),
    ],
)  # fmt: skip
async def test_a_bad_request_is_answered_with_a_problem(
    gateway: GatewayWorld, method: str, path: str, options: dict[str, Any], status: int, code: str, says: str
) -> None:
    problem = await gateway.refused(method, path, **options)
    assert (problem["status"], problem["code"]) == (status, code), problem
    assert says in problem["detail"] or says == problem["field"], problem
    assert await gateway.world.events("operator.action") == []


async def test_a_body_that_never_ends_is_cut_off(gateway: GatewayWorld) -> None:
    sent = 0

    async def endless() -> Any:
        nonlocal sent
        while True:
            sent += 65_536
            yield b" " * 65_536

    problem = await gateway.refused("POST", WISH, content=endless(), headers=JSON)
    assert problem["status"] == 413
    assert sent < 2 << 20


async def test_a_compressed_body_is_not_unpacked(gateway: GatewayWorld) -> None:
    """A kilobyte may stand for a gigabyte: nobody here unpacks anything, whatever the header says."""
    bomb = gzip.compress(b'{"verb": "cordon", "reason": "' + b"x" * (8 << 20) + b'"}')
    assert len(bomb) < 20_000
    problem = await gateway.refused("POST", WISH, content=bomb, headers=JSON | {"Content-Encoding": "gzip"})
    assert (problem["status"], problem["code"]) == (400, "bad-json")


async def test_words_that_a_shell_would_run_are_kept_as_they_are(gateway: GatewayWorld) -> None:
    reason = "'; rm -rf / ; $(reboot) `halt` ${HOME} && \\u0041 <b>&amp;</b> %s {0}"
    await gateway.client.wish_node("n1", "cordon", reason=reason)
    (event,) = await gateway.world.events("operator.action")
    assert reason in event.reason


async def test_what_nobody_expected_says_nothing_of_our_insides(
    gateway: GatewayWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def broken(*_: Any, **__: Any) -> None:
        raise RuntimeError("secret")

    monkeypatch.setattr(gateway.world.store, "get", broken)
    problem = await gateway.refused("GET", "/nodes/n1")
    assert (problem["status"], problem["code"]) == (500, "internal")
    assert "secret" not in json.dumps(problem)


TEXT = st.text(max_size=40)
SCALAR = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | TEXT
KNOWN_FIELD = st.sampled_from(
    ["verb", "reason", "force", "request_id", "expires_in_s", "nodes", "for_s", "level", "pool", "text"]
)
LIKELY = SCALAR | st.sampled_from(["cordon", "terminate", "scale", "pause", "all", "training"])
BODY = st.dictionaries(KNOWN_FIELD | TEXT, LIKELY | st.lists(SCALAR, max_size=3), max_size=6)
PATH = st.sampled_from(
    ["/nodes", "/nodes/n1", "/nodes/n1/explain", WISH, "/nodes/n1/wishes/r", "/nodes/n1/inject", "/instances", "/pools",
     "/pools/training", "/pools/training/explain", "/pools/burst/wishes", "/pools/burst/wishes/r", "/plan", "/freeze",
     "/unfreeze", "/guards", "/config", "/config/preview", "/version", "/status", "/events"]
) | st.builds(lambda parts: "/" + "/".join(parts), st.lists(TEXT, max_size=4))  # fmt: skip
PARAMETER = st.sampled_from(
    ["pool", "node", "limit", "page_token", "since", "type", "label", "all", "status", "health", "dry_run", "after"]
)
QUERY = st.lists(
    st.tuples(PARAMETER | TEXT, TEXT | st.sampled_from(["1", "training", "2h", "node.*", "a=b"])), max_size=4
)


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(method=st.sampled_from(["GET", "POST"]), path=PATH, query=QUERY, body=BODY | st.binary(max_size=64))
async def test_no_garbage_makes_the_gateway_fail(method: str, path: str, query: Any, body: Any) -> None:
    async with gateway_world() as gateway:
        content = body if isinstance(body, bytes) else json.dumps(body).encode()
        try:
            url = httpx.URL("http://gateway").copy_with(path=f"/api/v1{path}").copy_merge_params(query)
        except (httpx.InvalidURL, UnicodeEncodeError):
            return
        # No provisioner and no agent is there to answer, which is a 503 and not a fault.
        options: dict[str, Any] = {"content": content, "headers": JSON} if method == "POST" else {}
        response = await gateway.http.request(method, url, **options)
        assert response.status_code != 500, response.text
        kind = response.headers["content-type"]
        assert kind in ("application/json", "application/problem+json")
        assert response.status_code < 400 or kind == "application/problem+json"
