"""`navarch policy check`, and the settings that health takes from a configuration."""

from __future__ import annotations

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
