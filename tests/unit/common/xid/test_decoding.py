"""What a line means: the driver's own words before any table, and what the line is about."""

from __future__ import annotations

from pathlib import Path

import pytest

from navarch_common.xid import Decoded, Decoder, Severity
from navarch_common.xid.decoding import MEANINGS
from navarch_common.xid.kinds import KINDS

SAMPLES = Path(__file__).parents[3] / "data" / "kmsg_samples.txt"


def decoded(*lines: str) -> Decoded:
    decoder = Decoder()
    found = [decoder.line(text) for text in lines][-1]
    assert found is not None
    return found


def xid(text: str) -> str:
    return f"NVRM: Xid (PCI:0000:3b:00): {text}"


@pytest.mark.parametrize(
    ("text", "severity", "action"),
    [
        ("79, GPU has fallen off the bus.", "fatal", "reboot_node"),
        ("4711, something new", "unclassified", "none"),
        ("94, Contained: SM (0x1). RST: No, D-RST: No", "recoverable", "restart_app"),
        ("94, Contained: SM (0x1). RST: No, D-RST: Yes", "recoverable", "drain_and_reset"),
        ("95, Uncontained: FBHUB. RST: Yes, D-RST: No", "fatal", "reset_gpu"),
        ("154, GPU recovery action changed from 0x1 (GPU Reset Required) to 0x0 (None)", "info", "none"),
        ("154, GPU recovery action changed from 0x0 (None) to 0x1 (GPU Reset Required)", "recoverable", "reset_gpu"),
        ("154, GPU recovery action changed from 0x0 (None) to 0x2 (Node Reboot Required)", "recoverable", "reboot_node"),
        ("154, GPU recovery action changed from 0x0 (None) to 0x4 (Drain and Reset)", "recoverable", "drain_and_reset"),
        ("154, GPU recovery action changed from 0x0 (None) to 0x9 (Dance)", "recoverable", "follow_xid154"),
        ("144, SAW_MVB Fatal XC0 i0 Link 00 (0x00000001 0x00000002 0x0 0x0)", "fatal", "reset_gpu"),
        ("144, SAW_MVB Nonfatal XC0 i0 Link 00 (0x00000001 0x00000001 0x0 0x0)", "warning", "none"),
        ("144, SAW_MVB Nonfatal XC0 i0 Link 00 (0x03ffffff 0x00000001 0x0 0x0)", "warning", "check_nvlink"),
    ],
)  # fmt: skip
def test_an_xid(text: str, severity: str, action: str) -> None:
    found = decoded(xid(text))
    assert (found.kind, found.severity.value, found.action) == ("xid", severity, action)
    assert (found.pci, found.entity) == ("0000:3b:00", "gpu:0000:3b:00")


def test_the_printed_word_comes_before_the_catalogue() -> None:
    line = "nvidia-nvswitch1: SXid (PCI:0000:86:00.0): 12028, {}, Link 32 egress non-posted PRIV error"
    assert decoded(line.format("Non-fatal")).severity is Severity.INFO
    fatal = decoded(line.format("Fatal"))
    assert (fatal.kind, fatal.severity, fatal.entity) == ("sxid", Severity.FATAL, "switch:0000:86:00")
    potential = "nvidia-nvswitch1: SXid (PCI:0000:86:00.0): 20034, Non-fatal, Link 30 LTSSM Fault Up"
    assert decoded(potential).severity is Severity.WARNING


def test_a_gpu_has_its_uuid_where_the_driver_has_said_it_before() -> None:
    uuid = "GPU-509665ad-b600-ac93-3616-d754b23d636d"
    found = decoded(f"NVRM: GPU at PCI:0000:3b:00: {uuid}", xid("79, GPU has fallen off the bus."))
    assert found.entity == f"gpu:{uuid}"
    other = decoded(f"NVRM: GPU at PCI:0000:af:00: {uuid}", xid("79, GPU has fallen off the bus."))
    assert other.entity == "gpu:0000:3b:00"


def test_a_line_of_something_else_tells_of_nothing() -> None:
    assert Decoder().line("usb 1-1: new high-speed USB device number 2") is None


def test_every_kind_has_a_meaning() -> None:
    assert KINDS - {"xid", "sxid", "sxid_detail"} == set(MEANINGS)


def test_every_sample_is_decoded() -> None:
    decoder = Decoder()
    for row in SAMPLES.read_text(encoding="utf-8").splitlines():
        if row and not row.startswith("#"):
            text, kind, code, pci = row.split("\t")
            found = decoder.line(text)
            if kind == "none":
                assert found is None
                continue
            assert found is not None
            assert found.kind == kind
            assert (str(found.code or "-"), found.pci or "-") == (code, pci)
            assert found.name
            assert found.entity.split(":")[0] in ("gpu", "switch", "device", "node")
