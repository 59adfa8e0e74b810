"""The agent's settings: flags, their variables, and errors that name what is wrong."""

from __future__ import annotations

from pathlib import Path

import pytest

from navarch_agent.settings import AgentSettings, SettingsError, parse, unknown_variables

NEEDED = ["--server", "nats://10.0.0.5:4222", "--node-id", "training-a", "--pool", "training"]


def test_three_settings_are_enough() -> None:
    assert parse(NEEDED, {}) == AgentSettings(server="nats://10.0.0.5:4222", node="training-a", pool="training")


def test_every_flag_is_a_variable_too() -> None:
    environ = {
        "NAVARCH_AGENT_SERVER": "nats://a:1,tls://b:2",
        "NAVARCH_AGENT_NODE_ID": "training-a",
        "NAVARCH_AGENT_POOL": "training",
        "NAVARCH_AGENT_GENERATION": "4",
        "NAVARCH_AGENT_KMSG": "/run/kmsg",
        "NAVARCH_AGENT_DRIVER": "fake",
        "NAVARCH_AGENT_GPU_COUNT": "4",
        "NAVARCH_AGENT_DATA_DIR": "/data",
        "NAVARCH_AGENT_BOOT_ID": "b-1",
        "NAVARCH_AGENT_HEARTBEAT_INTERVAL": "500ms",
        "NAVARCH_AGENT_HEALTH_CHECK_INTERVAL": "2m",
        "NAVARCH_AGENT_HOST_CHECKS": "false",
        "NAVARCH_AGENT_SUBJECT_PREFIX": "acme.navarch",
        "NAVARCH_AGENT_CREDENTIALS": "/c",
        "NAVARCH_AGENT_TLS_CA": "/t",
        "NAVARCH_AGENT_OTLP_ENDPOINT": "http://127.0.0.1:4318",
        "NAVARCH_AGENT_LOG_LEVEL": "debug",
    }
    assert parse([], environ) == AgentSettings(
        server="nats://a:1,tls://b:2",
        node="training-a",
        pool="training",
        generation=4,
        kmsg=Path("/run/kmsg"),
        driver="fake",
        gpu_count=4,
        data_dir=Path("/data"),
        boot_id="b-1",
        heartbeat_interval_s=0.5,
        health_check_interval_s=120,
        host_checks=False,
        subject_prefix="acme.navarch",
        credentials=Path("/c"),
        tls_ca=Path("/t"),
        otlp_endpoint="http://127.0.0.1:4318",
        log_level="debug",
    )
    assert unknown_variables(environ) == []


def test_the_address_also_comes_from_the_common_variable_but_never_from_the_cli_s() -> None:
    rest = NEEDED[2:]
    assert parse(rest, {"NAVARCH_NATS_URL": "nats://c:3"}).server == "nats://c:3"
    assert parse(rest, {"NAVARCH_NATS_URL": "nats://c:3", "NAVARCH_AGENT_SERVER": "nats://d:4"}).server == "nats://d:4"
    with pytest.raises(SettingsError, match="--server is missing; it may also come from NAVARCH_AGENT_SERVER or"):
        parse(rest, {"NAVARCH_SERVER": "http://localhost:8080"})


def test_a_flag_wins_over_its_variable() -> None:
    assert parse([*NEEDED, "--generation", "2"], {"NAVARCH_AGENT_GENERATION": "9"}).generation == 2
    assert parse([*NEEDED, "--host-checks"], {"NAVARCH_AGENT_HOST_CHECKS": "false"}).host_checks


def test_the_host_is_looked_at_unless_a_switch_or_its_variable_says_no() -> None:
    assert parse(NEEDED, {}).host_checks
    assert parse([*NEEDED, "--host-checks"], {}).host_checks
    assert not parse([*NEEDED, "--no-host-checks"], {}).host_checks
    assert not parse([*NEEDED, "--no-host-checks"], {"NAVARCH_AGENT_HOST_CHECKS": "true"}).host_checks
    with pytest.raises(SettingsError, match="NAVARCH_AGENT_HOST_CHECKS: expected true or false, found 'maybe'"):
        parse(NEEDED, {"NAVARCH_AGENT_HOST_CHECKS": "maybe"})


def test_the_journal_is_a_kernel_log_and_a_file_may_have_its_name() -> None:
    assert parse([*NEEDED, "--kmsg", "journald"], {}).kmsg == "journald"
    assert parse(NEEDED, {"NAVARCH_AGENT_KMSG": "journald"}).kmsg == "journald"
    assert parse([*NEEDED, "--kmsg", "./journald"], {}).kmsg == Path("journald")
    with pytest.raises(SettingsError, match=r"--kmsg: a simulated machine .* prints into a file, expected a path"):
        parse([*NEEDED, "--kmsg", "journald", "--driver", "fake"], {})


@pytest.mark.parametrize(
    ("flag", "value", "words"),
    [
        ("--node-id", "Training_A", "--node-id: expected a node id (1 to 63 of a-z, 0-9 and '-'), found 'Training_A'"),
        ("--node-id", "a\n", "--node-id: expected a node id"),
        ("--pool", "*", "--pool: expected a pool's id"),
        ("--server", "http://x:8080", "--server: expected one or more NATS addresses"),
        ("--server", "x:4222", "--server: expected"),
        ("--generation", "-1", "--generation: expected a whole number"),
        ("--driver", "cuda", "--driver: expected nvml or fake, found 'cuda'"),
        ("--gpu-count", "1000", "--gpu-count: expected a number from 0 to 64"),
        ("--heartbeat-interval", "0s", "--heartbeat-interval: expected a duration"),
        ("--heartbeat-interval", "nan", "expected a duration"),
        ("--heartbeat-interval", "2d", "expected a duration"),
        ("--subject-prefix", "a.*", "--subject-prefix: expected words"),
        ("--boot-id", "a b", "--boot-id: expected 1 to 64"),
        ("--otlp-endpoint", "collector", "--otlp-endpoint: expected an http address"),
    ],
)
def test_a_wrong_value_is_named_with_what_was_expected(flag: str, value: str, words: str) -> None:
    with pytest.raises(SettingsError) as caught:
        parse([*NEEDED, f"{flag}={value}"], {})
    assert words in str(caught.value)


def test_a_wrong_variable_is_named_by_its_own_name() -> None:
    with pytest.raises(SettingsError, match="NAVARCH_AGENT_GENERATION: expected a whole number, found 'two'"):
        parse(NEEDED, {"NAVARCH_AGENT_GENERATION": "two"})


def test_a_misspelt_variable_is_not_ignored_silently() -> None:
    assert unknown_variables({"NAVARCH_AGENT_NODEID": "x", "NAVARCH_SERVER": "y", "HOME": "/"}) == [
        "NAVARCH_AGENT_NODEID means nothing to the agent; did you mean NAVARCH_AGENT_NODE_ID?"
    ]
