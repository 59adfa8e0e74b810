"""Every code of the catalogue, from the kernel's line to the default policy's verdict; and the codes that it lacks.

What is expected is written down here by NVIDIA's action word, and for each code where the policy knows better.
"""

from __future__ import annotations

import pytest
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st

from navarch_agent.checks import from_kernel
from navarch_agent.log import KernelRecord
from navarch_common.events.kinds import NodeDegraded
from navarch_common.events.messages import Observation
from navarch_common.model.health import HealthRecord
from navarch_common.xid import CatalogueEntry, parse_line, sxids, xids
from navarch_health.facts import facts_of, subject_of
from navarch_health.fold import Limits, fold_report
from navarch_health.life import heard
from navarch_health.policy import Facts, Rule, default_policy
from support.health_world import BOOT, STATUS, T0, context, node, record, report, seconds

Verdict = tuple[str, str]
"""The result, and the action that is asked for."""
WELL: Verdict = ("healthy", "none")
RESTART_APP: Verdict = ("healthy", "restart_app")
SHOWN: Verdict = ("degraded", "none")
RESET_WHEN_IDLE: Verdict = ("degraded", "reset_gpu")
RESET: Verdict = ("unhealthy", "reset_gpu")
REBOOT: Verdict = ("unhealthy", "reboot_node")
REPLACE: Verdict = ("unhealthy", "drain_and_replace")

XID_BY_WORD = {
    "none": WELL,
    "restart_app": RESTART_APP,
    "contact_support": SHOWN,
    "check_nvlink": SHOWN,
    "check_uvm": SHOWN,
    "update_software": SHOWN,
    "follow_xid154": SHOWN,
    "reset_gpu": RESET,
    "drain_and_reset": RESET,
    "reboot_node": REBOOT,
    "restart_vm": REBOOT,
    "check_mechanicals": REPLACE,
    "drain_and_replace": REPLACE,
}
XID_BY_CODE = {
    63: RESET_WHEN_IDLE,  # a row was remapped, which is a success; it takes effect at the next reset
    79: REPLACE,  # on a machine of a cloud a reboot brings no GPU back to the bus
    94: RESET_WHEN_IDLE,  # contained: what was hit is restarted by its owner, the memory is repaired at a reset
    150: SHOWN,  # an NVLink code where the driver prints neither Fatal nor registers
    156: RESET_WHEN_IDLE,  # a resource was retired, as 63
    160: RESET_WHEN_IDLE,  # a channel was retired, as 63
    168: SHOWN,  # less memory than there was, which a warning says; who runs the fleet decides
    175: RESET,  # the catalogue calls it fatal and asks for NVIDIA's support
}
TAKES_WORK = {79}

SXID_BY_WORD = {
    "none": WELL,
    "contact_support": SHOWN,
    "check_cooling": SHOWN,
    "check_nvlink": SHOWN,
    "restart_fabric_manager": SHOWN,
    "restart_vm_or_reset_fabric": SHOWN,
    "reset_all_gpus_and_switches": SHOWN,
    "reboot_node": REBOOT,
    "drain_and_replace": REPLACE,
}
"""Where the driver prints neither Fatal nor Non-fatal, as it does in its other rows."""

LISTED_XIDS = frozenset(entry.code for entry in xids())
LISTED_SXIDS = frozenset(entry.code for entry in sxids())
UNLISTED_XIDS = st.integers(0, 99_999).filter(lambda code: code not in LISTED_XIDS)
UNLISTED_SXIDS = st.integers(0, 99_999).filter(lambda code: code not in LISTED_SXIDS)
SAID = st.text(max_size=100) | st.sampled_from(
    ["", "RST: Yes, D-RST: Yes", "GPU recovery action changed from 0x0 (None) to 0x2 (Node Reboot Required)",
     "NVLink: fatal error detected on link 14(0x0)", "SAW_MVB Fatal XC0 i0 Link 00 (0x1 0x2 0x0 0x0)",
     "Ch 1 caused by previous Xid 79", "pid=1, name=x, GPU has fallen off the bus."]
)  # fmt: skip
"""What a driver may print behind a code, with the words that mean something behind other codes."""


def xid_line(code: int, said: str = "said the driver") -> str:
    return f"NVRM: Xid (PCI:0000:3b:00): {code}, {said}"


def sxid_line(code: int, said: str = "said the driver") -> str:
    return f"[131453.740743] nvidia-nvswitch0: SXid (PCI:0000:86:00.0): {code:05d}, {said}"


def seen(line: str, at: float = 0.0) -> Observation:
    """What the agent tells of `line`, which it must not keep to itself."""
    fault = parse_line(line)
    assert fault is not None
    machine = node().registration
    assert machine is not None
    told = KernelRecord(sequence=1, at=T0 + seconds(at), text=line, boot_id=BOOT, place="1")
    observation = from_kernel(fault, told, machine.gpus)
    assert observation is not None
    return observation


def judged(line: str) -> tuple[Facts, Rule]:
    observation = seen(line)
    machine = node().registration
    assert machine is not None
    facts = facts_of(observation, subject_of(observation, machine.gpus), node(), record(), ())
    judgement = default_policy().judge(facts)
    assert not judgement.errors
    assert judgement.rule is not None
    return facts, judgement.rule


def verdict_on(line: str) -> Verdict:
    _, rule = judged(line)
    return rule.result, rule.action


def test_the_tables_here_fit_the_catalogue() -> None:
    assert (len(xids()), len(sxids())) == (176, 420)
    assert {entry.action for entry in xids()} == set(XID_BY_WORD)
    assert {entry.action for entry in sxids()} == set(SXID_BY_WORD)
    needless = [e.code for e in xids() if XID_BY_CODE.get(e.code) == XID_BY_WORD[e.action]]
    assert not needless, "what the word says is no exception"


@pytest.mark.parametrize("entry", xids(), ids=lambda entry: f"{entry.code}-{entry.action}")
def test_an_xid_is_judged_by_its_action_word(entry: CatalogueEntry) -> None:
    facts, rule = judged(xid_line(entry.code))
    assert (rule.result, rule.action) == XID_BY_CODE.get(entry.code, XID_BY_WORD[entry.action])
    assert rule.takes_work == (entry.code in TAKES_WORK)
    assert (facts.event["code"], facts.event["severity"]) == (f"xid-{entry.code}", entry.severity)


@pytest.mark.parametrize("entry", sxids(), ids=lambda entry: f"{entry.code}-{entry.action}")
def test_an_sxid_is_judged_by_the_printed_word_and_else_by_its_action_word(entry: CatalogueEntry) -> None:
    assert verdict_on(sxid_line(entry.code, "Fatal, Link 30 said the driver")) == REBOOT
    assert verdict_on(sxid_line(entry.code, "Non-fatal, Link 30 said the driver")) == SHOWN
    facts, rule = judged(sxid_line(entry.code))
    assert (rule.result, rule.action) == SXID_BY_WORD[entry.action]
    assert (facts.event["code"], facts.event["severity"]) == (f"sxid-{entry.code}", entry.severity)


@given(UNLISTED_XIDS, SAID)
@settings(max_examples=300, deadline=None)
@example(0, "").via("no code at all")
@example(177, "").via("the first that is not listed")
@example(99_999, "").via("the last that a line can have")
def test_an_xid_that_nobody_lists_is_shown_and_repairs_nothing(code: int, said: str) -> None:
    facts, rule = judged(xid_line(code, said))
    assert (facts.event["code"], facts.event["severity"]) == (f"xid-{code}", "unclassified")
    assert (rule.name, rule.result, rule.action, rule.takes_work) == ("unclassified", *SHOWN, False)


@given(UNLISTED_SXIDS, st.sampled_from(["", "Non-fatal, ", "Non-fatal, Link 3 "]), SAID)
@settings(max_examples=300, deadline=None)
def test_an_sxid_that_nobody_lists_is_shown_and_repairs_nothing(code: int, word: str, said: str) -> None:
    assume(not said.strip().startswith(("Fatal,", "Severity ", "Data {")))
    facts, rule = judged(sxid_line(code, word + said))
    assert (facts.event["code"], facts.event["severity"]) == (f"sxid-{code}", "unclassified")
    assert (rule.result, rule.action, rule.takes_work) == (*SHOWN, False)


@given(UNLISTED_SXIDS)
@settings(max_examples=50, deadline=None)
def test_what_the_driver_itself_calls_fatal_is_fatal_listed_or_not(code: int) -> None:
    facts, rule = judged(sxid_line(code, "Fatal, Link 30 said a driver of tomorrow"))
    assert facts.event["severity"] == "unclassified"
    assert (rule.name, rule.result, rule.action) == ("switch-fatal", *REBOOT)


@pytest.mark.parametrize("line", [xid_line(4711), sxid_line(10_999)], ids=["xid", "sxid"])
def test_no_number_of_unlisted_codes_is_worth_a_machine(line: str) -> None:
    change = heard(record(), node(), BOOT, "ok", context())
    assert change is not None
    held: HealthRecord = change.record
    events: list[object] = []
    for turn in range(1, 40):
        at = 600.0 * turn
        said = report(seen(line, at), sequence=turn)
        folded = fold_report(held, node(), said, default_policy().judge, Limits(), context(at)).change
        assert folded is not None
        held = folded.record
        events += folded.events
    assert [type(event) for event in events] == [NodeDegraded]
    assert (held.status, held.action) == (STATUS.DEGRADED, "none")
    assert held.episodes[-1].count == 39
