"""The catalogue: what listed codes are called, and that an unlisted one is visible and harmless."""

from __future__ import annotations

import pytest

from navarch_common.xid import Severity, sxid_entry, xid_entry, xids


@pytest.mark.parametrize(
    ("code", "name", "severity", "action"),
    [
        (79, "GPU fell off the bus", Severity.FATAL, "reboot_node"),
        (94, "contained memory error", Severity.RECOVERABLE, "restart_app"),
        (45, "channel preemptive cleanup (follows another error or app kill)", Severity.INFO, "none"),
        (154, "GPU recovery action changed (driver verdict)", Severity.INFO, "follow_xid154"),
    ],
)
def test_a_listed_xid_has_name_severity_and_action(code: int, name: str, severity: Severity, action: str) -> None:
    entry = xid_entry(code)
    assert (entry.code, entry.name, entry.severity, entry.action) == (code, name, severity, action)


def test_an_unlisted_code_is_unclassified_and_asks_for_nothing() -> None:
    for entry in (xid_entry(4711), sxid_entry(99999)):
        assert entry.severity is Severity.UNCLASSIFIED
        assert entry.action == "none"


def test_the_catalogue_is_whole() -> None:
    assert [entry.code for entry in xids()] == list(range(1, 177))
    assert sxid_entry(20034).severity is Severity.RECOVERABLE


def test_every_listed_xid_names_its_severity() -> None:
    assert all(entry.name and entry.severity is not Severity.UNCLASSIFIED for entry in xids())
