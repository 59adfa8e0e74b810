"""`navarch xid`: the catalogue to look at, and any kernel log to decode."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from navarch_health.xid_commands import xid

LOST = "[6781741.548779] NVRM: Xid (PCI:0000:91:00): 79, pid='<unknown>', name=<unknown>, GPU has fallen off the bus."


def run(*arguments: str, text: str | bytes = "") -> tuple[int, str, str]:
    result = CliRunner().invoke(xid, arguments, input=text)
    return result.exit_code, result.stdout, result.stderr


def test_the_list_has_every_xid_and_with_sxid_every_sxid() -> None:
    for arguments, count, some in ((["list"], 176, 79), (["list", "--sxid"], 420, 20034)):
        code, out, _ = run(*arguments, "-o", "json")
        listed = json.loads(out)
        assert (code, len(listed)) == (0, count)
        assert some in [entry["code"] for entry in listed]


def test_the_list_as_a_table_and_by_severity() -> None:
    code, out, _ = run("list", "--severity", "fatal")
    assert code == 0
    assert "GPU fell off the bus" in out
    assert "MMU page fault" not in out
    assert run("list", "--severity", "fatal", "-o", "name")[1].split()[:1] == ["48"]


def test_one_code_with_what_nvidia_and_others_say_of_it() -> None:
    code, out, _ = run("show", "79")
    assert code == 0
    said = dict(line.split(maxsplit=1) for line in out.splitlines())
    assert (said["Xid"].strip(), said["severity"].strip()) == ("79", "fatal")
    assert "RESTART_BM" in out
    assert json.loads(run("show", "20034", "-o", "json")[1])["name"] == "dlpl ltssm fault up"
    assert "33 rules" in run("show", "145")[1]


@pytest.mark.parametrize(("code", "words"), [("4711", "Xid 4711"), ("99999", "SXid 99999"), ("0", "Xid 0")])
def test_an_unlisted_code_is_said_to_be_none(code: str, words: str) -> None:
    status, out, err = run("show", code)
    assert (status, out) == (1, "")
    assert f"{words} is in no catalogue" in err


@pytest.mark.parametrize("code", ["x", "-1", "100000", ""])
def test_what_is_no_code_is_refused(code: str) -> None:
    assert run("show", "--", code)[0] == 2


def test_a_log_from_standard_input_as_one_object_a_line() -> None:
    code, out, err = run("decode", "-o", "json", text=f"usb 1-1: new device\n{LOST}\n")
    assert (code, err) == (0, "")
    assert [json.loads(line) for line in out.splitlines()] == [
        {
            "kind": "xid", "code": 79, "pci": "0000:91:00", "gpu_instance": None, "name": "GPU fell off the bus",
            "severity": "fatal", "action": "reboot_node", "entity": "gpu:0000:91:00",
            "message": "GPU has fallen off the bus.",
        }
    ]  # fmt: skip


def test_a_file_as_a_table_with_a_count_at_its_end(tmp_path: Path) -> None:
    (tmp_path / "dmesg").write_text(f"{LOST}\nnothing\n")
    code, out, err = run("decode", str(tmp_path / "dmesg"))
    assert code == 0
    assert out.splitlines()[1].split()[:4] == ["fatal", "xid", "79", "gpu:0000:91:00"]
    assert err == "1 of 2 lines tell of a fault\n"
    assert run("decode", str(tmp_path / "dmesg"), "-o", "name")[1] == "xid-79\n"
    assert run("decode", str(tmp_path / "dmesg"), "-o", "yaml")[1].startswith("---\nkind: xid\n")


def test_whatever_bytes_there_are_and_lines_without_end(tmp_path: Path) -> None:
    (tmp_path / "log").write_bytes(b"\xff\xfe\x00\x1b[2J" * 30_000 + b"\n" + LOST.encode() + b"\xff\n\n\r\n")
    code, out, _ = run("decode", str(tmp_path / "log"), "-o", "json")
    assert code == 0
    [line] = out.splitlines()
    assert json.loads(line)["code"] == 79
    assert "\x1b" not in out


def test_a_file_that_is_not_there_is_said_so(tmp_path: Path) -> None:
    code, out, err = run("decode", str(tmp_path / "none"))
    assert (code, out) == (1, "")
    assert "cannot be read: No such file or directory" in err
    assert run("decode", str(tmp_path))[0] == 1
