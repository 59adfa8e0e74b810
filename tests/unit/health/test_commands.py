"""`navarch policy check`, and the settings that health takes from a configuration."""

from __future__ import annotations

import json
from datetime import timedelta
from importlib import resources
from pathlib import Path

import pytest
from typer.testing import CliRunner

from navarch_common.config.load import load_text
from navarch_health.commands import policy
from navarch_health.policy_file import PolicyFile, PolicyUnusable
from navarch_health.settings import HealthSettings

GOOD = "metadata: {name: mine}\nrules:\n  - {name: one, condition: 'true', result: degraded, after: 3, mode: shadow}\n"
TRIED = """
rules:
  - {name: all, condition: 'true', result: degraded, mode: shadow}
  - {name: lost, condition: event.metrics.xid_code == 79, result: unhealthy, action: reboot_node, takes_work: true}
"""
BAD = "rules:\n  - {name: one, condition: 'evnt.x', result: degraded}\n"


def run(*arguments: str, text: str = "") -> tuple[int, str, str]:
    result = CliRunner().invoke(policy, arguments, input=text)
    return result.exit_code, result.stdout, result.stderr


def test_a_good_policy_is_summed_up(tmp_path: Path) -> None:
    (tmp_path / "p.yaml").write_text(GOOD)
    code, out, _ = run("check", str(tmp_path / "p.yaml"))
    assert code == 0
    assert "ok: mine, 1 rules" in out
    assert "one: degraded, from episode 3 on (shadow)" in out


def test_the_default_policy_checks_itself_from_standard_input() -> None:
    text = (resources.files("navarch_health") / "default_policy.yaml").read_text()
    code, out, _ = run("check", "-", text=text)
    assert code == 0
    assert "navarch-default" in out
    assert "is ignored" not in out


def test_a_bad_policy_is_one_line_for_each_mistake_and_no_traceback() -> None:
    code, out, err = run("check", "-", text=BAD)
    assert code == 1
    assert out == ""
    assert "<stdin>:2:" in err
    assert "rules[0] (one): column 5 of the condition: undeclared reference" in err
    assert "1 mistake; nothing was changed" in err


def test_an_event_is_tried_against_a_policy(tmp_path: Path) -> None:
    (tmp_path / "p.yaml").write_text(TRIED)
    events = (
        '{"event_type": "xid", "code": 79, "pci": "0000:3b:00"}',
        '{"event_type": "thermal", "metrics": {"temperature": 90}}',
    )
    arguments = [word for event in events for word in ("--event", event)]
    code, out, _ = run("test", str(tmp_path / "p.yaml"), *arguments, "-o", "json")
    assert code == 0
    lost, hot = json.loads(out)
    assert lost == {
        "code": "xid-79", "entity": "gpu:0000:3b:00", "rule": "lost", "result": "unhealthy", "action": "reboot_node",
        "takes_work": True, "shadow": ["all"], "errors": [],
    }  # fmt: skip
    assert (hot["rule"], hot["result"], hot["errors"]) == ("", "healthy", ["lost"])
    assert "none matches" in run("test", str(tmp_path / "p.yaml"), *arguments)[1]


def test_a_rule_that_counts_is_tried_with_so_many_episodes(tmp_path: Path) -> None:
    (tmp_path / "p.yaml").write_text(GOOD.replace(", mode: shadow", ""))
    event = ("--event", '{"event_type": "xid", "code": 13}', "-o", "name")
    assert [run("test", str(tmp_path / "p.yaml"), *event, "--episode", n)[1] for n in "123"] == [
        "none\n",
        "none\n",
        "one\n",
    ]


def test_the_built_in_policy_can_be_tried() -> None:
    assert "gpu-fell-off-the-bus" in run("test", "default", "--event", '{"event_type": "xid", "code": 79}')[1]


@pytest.mark.parametrize(
    ("event", "words"),
    [
        ("x", "malformed"),
        ("[]", "Expected `object`"),
        ('{"code": 79}', "event_type"),
        ('{"event_type": "xid", "code": -1}', "$.code"),
        ('{"event_type": "xid", "cod": 79}', "has no key 'cod'; expected of at, event_type"),
        ("[" * 100_000, "recursion"),
    ],
)
def test_what_is_no_event_is_refused(event: str, words: str) -> None:
    code, out, err = run("test", "default", "--event", '{"event_type": "xid"}', "--event", event)
    assert (code, out) == (2, "")
    assert "--event 2" in err
    assert words in err


def test_events_are_not_tried_against_a_bad_policy() -> None:
    code, out, err = run("test", "-", "--event", '{"event_type": "xid"}', text=BAD)
    assert (code, out) == (1, "")
    assert "1 mistake" in err


@pytest.mark.parametrize("content", [None, b"\xff\xfe\x00"], ids=["missing", "binary"])
def test_a_file_that_cannot_be_read_is_said_so(tmp_path: Path, content: bytes | None) -> None:
    file = tmp_path / "p.yaml"
    if content is not None:
        file.write_bytes(content)
    code, _, err = run("check", str(file))
    assert code == 1
    assert "Traceback" not in err
    assert err


def test_the_policy_in_force_follows_its_file_and_survives_a_bad_one(tmp_path: Path) -> None:
    file, follower = tmp_path / "p.yaml", PolicyFile()
    assert follower.look(None) is None
    assert follower.policy.name == "navarch-default"
    with pytest.raises(PolicyUnusable, match="cannot be read"):
        follower.look(file)
    assert follower.look(file) is None, "told once"
    assert follower.policy.name == "navarch-default"
    file.write_text(GOOD)
    assert follower.look(file) is follower.policy
    assert follower.policy.name == "mine"
    assert follower.look(file) is None
    file.write_text(BAD)
    with pytest.raises(PolicyUnusable, match="column 5"):
        follower.look(file)
    assert follower.look(file) is None
    assert follower.policy.name == "mine"
    assert follower.look(None) is follower.policy
    assert follower.policy.name == "navarch-default"


def test_settings_come_from_the_configuration() -> None:
    text = """
server: {heartbeat_interval: 2s, silence_deadline: 90s, health_check_interval: 40s, health_policy: /etc/p.yaml}
providers: {local: {type: local}}
pools:
  training: {provider: local, instance_type: h100-8x, max_nodes: 3, health: {unhealthy_after: 4}}
"""
    settings = HealthSettings.of(load_text(text, "t", {}).config)
    assert settings.heartbeat_timeout == timedelta(seconds=6)
    assert settings.silence_deadline == timedelta(seconds=90)
    assert settings.policy_path == Path("/etc/p.yaml")
    assert settings.limits("training").unhealthy_after == 4
    assert settings.limits("training").reading_gap == timedelta(seconds=100)
    assert settings.limits("unheard-of").unhealthy_after == 2
    assert 0.05 <= settings.tick_s <= 1.0
