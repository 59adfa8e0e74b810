"""The policy: what loads, what is refused and where, what matches."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from navarch_common.model.health import Episode
from navarch_health.episodes import of
from navarch_health.facts import facts_of, subject_of
from navarch_health.fold import Limits, fold_report
from navarch_health.policy import Facts, Judgement, Policy, PolicyError, default_policy, load_policy
from support.health_world import T0, context, node, observation, record, report, seconds, xid

REFERENCE = """\
version: "1"
metadata:
  name: reference-like
  description: what files of the reference look like
rules:
  - name: fatal-xid
    description: codes that condemn
    priority: 100
    condition: |
      // only what the driver prints
      event.event_type == "xid" && has(event.metrics.xid_code) && event.metrics.xid_code in [
        48,  // double-bit
        79,  // off the bus
      ]
    result: unhealthy
  - name: recoverable-xid
    condition: event.event_type == "xid"
    result: degraded
  - name: ecc
    condition: 'event.event_type == "ecc_sbe" && event.metrics.ecc_sbe_count > 100'
    result: degraded
  - name: default
    condition: "true"
    result: healthy
"""


def rule(text: str) -> str:
    return f"rules:\n  - name: one\n{text}"


def facts(event: dict[str, Any], episodes: tuple[Episode, ...] = ()) -> Facts:
    base: dict[str, Any] = {"event_type": "xid", "metrics": {}, "message": "", "system": "", "code": "xid-1"}
    return Facts(event={**base, **event}, entity={}, node={}, gpu={}, history={}, episodes=episodes)


def judged(policy: Policy, event: dict[str, Any], episodes: tuple[Episode, ...] = ()) -> Judgement:
    return policy.judge(facts(event, episodes))


def name_of(judgement: Judgement) -> str:
    return "" if judgement.rule is None else judgement.rule.name


def test_a_file_of_the_reference_loads_unchanged_and_the_first_match_wins() -> None:
    policy = load_policy(REFERENCE, "ref.yaml")
    assert policy.name == "reference-like"
    assert name_of(judged(policy, {"metrics": {"xid_code": 79}})) == "fatal-xid"
    assert name_of(judged(policy, {"metrics": {"xid_code": 13}})) == "recoverable-xid"
    assert name_of(judged(policy, {"event_type": "thermal"})) == "default"
    assert policy.warnings == ("line 8: rules[0] (fatal-xid): key 'priority' is ignored",)
    fatal = policy.rules[0]
    assert (fatal.result, fatal.action, fatal.takes_work) == ("unhealthy", "drain_and_replace", False)


def test_a_rule_whose_evaluation_fails_does_not_match_and_is_counted() -> None:
    policy = load_policy(REFERENCE, "ref.yaml")
    judgement = judged(policy, {"event_type": "ecc_sbe"})
    assert name_of(judgement) == "default"
    assert judgement.errors == ("ecc",)


def test_nothing_matching_is_healthy_and_a_value_that_is_no_boolean_does_not_match() -> None:
    policy = load_policy(rule("    condition: event.message\n    result: unhealthy\n"), "f")
    judgement = judged(policy, {"message": "yes"})
    assert judgement.rule is None
    assert judgement.errors == ("one",)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        pytest.param(rule("    condition: evnt.x == 1\n    result: healthy\n"), "f:3:20: rules[0] (one): column 5 of the condition: undeclared reference to 'evnt.x'", id="unknown variable"),
        pytest.param(rule("    condition: 1 + \"a\" == 2\n    result: healthy\n"), "column 3 of the condition: found no matching overload", id="types"),
        pytest.param(rule("    condition: event.code\n      == \n    result: healthy\n"), "Syntax error", id="syntax"),
        pytest.param(rule("    condition: 1 + 1\n    result: healthy\n"), "is of type int, expected bool", id="no boolean"),
        pytest.param(rule("    condition: |\n      true &&\n        nope\n    result: healthy\n"), "f:5:9: rules[0] (one): line 2, column 3", id="line of a block"),
        pytest.param(rule("    condition: \"true\"\n    result: unhealty\n"), "did you mean 'unhealthy'?", id="result"),
        pytest.param(rule("    condition: \"true\"\n"), "`result` is missing", id="no result"),
        pytest.param(rule("    result: healthy\n"), "`condition` is missing", id="no condition"),
        pytest.param(rule("    condition: \"true\"\n    result: healthy\n    acton: none\n"), "did you mean 'action'?", id="slip of the pen"),
        pytest.param(rule("    condition: \"true\"\n    result: healthy\n    action: reboot\n"), "did you mean 'reboot_node'?", id="action"),
        pytest.param(rule("    condition: \"true\"\n    result: healthy\n    after: 0\n"), "from 1 to 8, found 0", id="after"),
        pytest.param(rule("    condition: \"true\"\n    result: healthy\n    within: 1h\n"), "say `after`", id="within alone"),
        pytest.param(rule("    condition: \"true\"\n    result: healthy\n    after: 2\n    within: soon\n"), "duration such as 10m", id="duration"),
        pytest.param(rule("    condition: \"true\"\n    result: unhealthy\n    clears_after: 1h\n"), "never goes by time alone", id="clearing a fatal verdict"),
        pytest.param(rule("    condition: \"true\"\n    result: healthy\n  - name: one\n    condition: \"true\"\n    result: healthy\n"), "a second rule named 'one'", id="twice"),
        pytest.param("rules: []\n", "at least one rule", id="no rules"),
        pytest.param("{}\n", "at least one rule", id="empty mapping"),
        pytest.param("rules:\n  - 3\n", "expected a rule", id="no mapping"),
        pytest.param("- a\n", "expected keys", id="a list"),
        pytest.param("rules: [\n", "YAML", id="broken YAML"),
        pytest.param("x" * 300_000, "more than the 262144", id="too large"),
    ],
)  # fmt: skip
def test_a_bad_policy_says_rule_place_and_expectation(text: str, told: str) -> None:
    with pytest.raises(PolicyError) as raised:
        load_policy(text, "f")
    assert told in str(raised.value)


def test_a_shadow_rule_is_told_and_decides_nothing() -> None:
    text = rule('    condition: "true"\n    result: unhealthy\n    mode: shadow\n')
    judgement = judged(load_policy(text, "f"), {})
    assert judgement.rule is None
    assert judgement.shadow == ("one",)


@pytest.mark.parametrize(
    ("times", "matches"), [((0,), False), ((0, 60), False), ((0, 60, 120), True), ((0, 60, 7200), False)]
)
def test_after_and_within_count_episodes(times: tuple[int, ...], matches: bool) -> None:
    text = rule('    condition: "true"\n    result: degraded\n    after: 3\n    within: 1h\n')
    episodes = tuple(
        Episode(
            entity="gpu:a",
            code="xid-1",
            boot_id="b",
            first_at=T0 + seconds(t),
            last_at=T0 + seconds(t),
            sequence=n,
            count=n + 1,
        )
        for n, t in enumerate(times)
    )
    assert (judged(load_policy(text, "f"), {}, episodes).rule is not None) is matches


def verdict_on(code: int, message: str = "said the driver") -> tuple[str, str, bool]:
    seen = xid(code, message=message)
    subject = subject_of(seen, node().registration.gpus)  # type: ignore[union-attr]
    judgement = default_policy().judge(facts_of(seen, subject, node(), record(), ()))
    assert not judgement.errors
    assert judgement.rule is not None
    return judgement.rule.result, judgement.rule.action, judgement.rule.takes_work


@pytest.mark.parametrize(
    ("code", "message", "expected"),
    [
        (13, "Graphics SM Warp Exception", ("healthy", "restart_app", False)),
        (31, "MMU Fault", ("healthy", "restart_app", False)),
        (43, "Ch 00000008", ("healthy", "restart_app", False)),
        (45, "Ch 0000000a", ("healthy", "none", False)),
        (48, "double bit error", ("unhealthy", "reset_gpu", False)),
        (54, "aux power", ("unhealthy", "drain_and_replace", False)),
        (62, "PMU halt", ("unhealthy", "reset_gpu", False)),
        (63, "Row Remapper: New row", ("degraded", "reset_gpu", False)),
        (64, "Row Remapper: failure", ("unhealthy", "drain_and_replace", False)),
        (68, "NVDEC0", ("healthy", "restart_app", False)),
        (74, "NVLink: fatal error detected on link 14(0x0)", ("unhealthy", "reset_gpu", False)),
        (74, "NVLink: corrected error on link 3(0x0)", ("degraded", "none", False)),
        (79, "GPU has fallen off the bus.", ("unhealthy", "drain_and_replace", True)),
        (92, "high rate", ("healthy", "none", False)),
        (93, "InfoROM", ("healthy", "none", False)),
        (94, "Contained: SM (0x1). RST: No, D-RST: No", ("degraded", "reset_gpu", False)),
        (95, "Uncontained: LTC. RST: Yes, D-RST: No", ("unhealthy", "reset_gpu", False)),
        (109, "context switch timeout", ("unhealthy", "reset_gpu", False)),
        (119, "Timeout waiting for RPC", ("unhealthy", "reset_gpu", False)),
        (120, "GSP", ("unhealthy", "reset_gpu", False)),
        (145, "RLW_SRC_TRACK Nonfatal XC0 i0 Link 08 (0x1 0x2)", ("degraded", "none", False)),
        (145, "RLW_RXPIPE Nonfatal XC0 i0 Link 13 (0x0409a0c2 0x00000008 0x1 0x0)", ("healthy", "none", False)),
        (145, "RLW_SRC_TRACK Nonfatal XC1 i0 Link 12 (0x040988e2 0x00000008 0x0 0x0)", ("degraded", "none", False)),
        (149, "NETIR_BER_EVENT Nonfatal XC0 i0 Link 03 (0x00086226 0x00000001 0x0 0x0)", ("healthy", "none", False)),
        (149, "NETIR_LINK_EVT  Fatal   XC0 i0 Link 01 (0x021425c6 0x00000000 0x0 0x0)", ("unhealthy", "reset_gpu", False)),
        (145, "RLW_SRC_TRACK Fatal    XC0 i0 Link 08 (0x1 0x2)", ("unhealthy", "reset_gpu", False)),
        (154, "GPU recovery action changed from 0x1 (GPU Reset Required) to 0x0 (None)", ("healthy", "none", False)),
        (154, "GPU recovery action changed from 0x0 (None) to 0x1 (GPU Reset Required)", ("unhealthy", "reset_gpu", False)),
        (154, "GPU recovery action changed from 0x0 (None) to 0x2 (Node Reboot Required)", ("unhealthy", "reboot_node", False)),
        (154, "GPU recovery action changed from 0x0 (None) to 0x3 (Drain P2P)", ("degraded", "none", False)),
        (154, "GPU recovery action changed from 0x0 (None) to 0x4 (Drain and Reset)", ("unhealthy", "reset_gpu", False)),
        (154, "something else", ("degraded", "none", False)),
        (999, "never heard of", ("degraded", "none", False)),
    ],
)  # fmt: skip
def test_the_default_policy_follows_the_vendor(code: int, message: str, expected: tuple[str, str, bool]) -> None:
    assert verdict_on(code, message) == expected


def test_no_unlisted_code_is_ever_repaired() -> None:
    for code in (177, 500, 4242, 9999):
        assert verdict_on(code)[:2] == ("degraded", "none")


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"event_type": "ecc_dbe"}, "unhealthy"),
        ({"event_type": "ecc_sbe", "metrics": {"ecc_sbe_count": "250"}}, "degraded"),
        ({"event_type": "ecc_sbe", "metrics": {"ecc_sbe_count": 3}}, "healthy"),
        ({"event_type": "thermal", "metrics": {"temperature": 99.5}}, "unhealthy"),
        ({"event_type": "thermal", "metrics": {"temperature": 90}}, "degraded"),
        ({"event_type": "thermal", "metrics": {"temperature": 60}}, "healthy"),
        ({"event_type": "thermal", "metrics": {"temperature": float(10**300)}}, "unhealthy"),
        ({"event_type": "thermal", "metrics": {"temperature": 10**300}}, "unhealthy"),
        ({"event_type": "nvlink"}, "degraded"),
        ({"event_type": "pcie"}, "degraded"),
        ({"event_type": "power"}, "degraded"),
        ({"event_type": "kernel", "metrics": {"kind": "gpu_lost"}}, "unhealthy"),
        ({"event_type": "kernel", "metrics": {"kind": "oom_kill"}}, "healthy"),
        ({"event_type": "sxid", "code": 20034, "message": "Fatal, Link 30 LTSSM fault"}, "unhealthy"),
        ({"event_type": "sxid", "code": 20034, "message": "Non-fatal, Link 30 LTSSM fault"}, "degraded"),
    ],
)
def test_the_default_policy_on_readings_switches_and_the_kernel(fields: dict[str, Any], expected: str) -> None:
    seen = observation(**fields)
    subject = subject_of(seen, ())
    judgement = default_policy().judge(facts_of(seen, subject, node(), record(), ()))
    assert judgement.rule is not None
    assert judgement.rule.result == expected


def test_link_errors_condemn_only_when_they_repeat_within_an_hour() -> None:
    held, of_node = record(), node()
    for sequence, at in enumerate((0, 600, 1200), start=1):
        folded = fold_report(
            held, of_node, report(xid(74, at), sequence=sequence), default_policy().judge, Limits(), context(at)
        )
        assert folded.change is not None
        held = folded.change.record
        assert held.status == ("unhealthy" if sequence == 3 else "degraded")
    assert len(of(held.episodes, "gpu:GPU-3", "xid-74")) == 3
    assert timedelta(seconds=1200) < timedelta(hours=1)
