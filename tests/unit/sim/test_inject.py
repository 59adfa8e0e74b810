"""`navarch inject`: what is asked for what was typed."""

import pytest
from typer.testing import CliRunner

from navarch_cli.main import app
from navarch_cli.session import WRONG, Failure
from navarch_sim.commands import request

CASES = {
    "xid 79 --gpu 3": (("xid", "79", 3, None), {"verb": "xid", "code": 79, "gpu": 3}),
    "xid 13": (("xid", "13", None, None), {"verb": "xid", "code": 13}),
    "xid with words": (("xid", "94", None, "Contained"), {"verb": "xid", "code": 94, "message": "Contained"}),
    "temperature": (("temperature", "91.5", 0, None), {"verb": "temperature", "temperature_c": 91.5, "gpu": 0}),
    "temperature, real again": (("temperature", None, 0, None), {"verb": "temperature", "gpu": 0}),
    "silence": (("silence", "90s", None, None), {"verb": "silence", "for_s": 90.0}),
    "silence of five minutes": (("silence", "5m", None, None), {"verb": "silence", "for_s": 300.0}),
    "silence ended": (("silence", "0", None, None), {"verb": "silence", "for_s": 0.0}),
    "busy": (("busy", None, None, None), {"verb": "busy"}),
    "busy with two": (("busy", "2", None, None), {"verb": "busy", "processes": 2}),
    "idle": (("idle", None, None, None), {"verb": "idle"}),
    "nvml-hang": (("nvml-hang", None, None, None), {"verb": "nvml-hang"}),
    "heal": (("heal", None, None, None), {"verb": "heal"}),
}


@pytest.mark.parametrize("case", CASES)
def test_what_is_typed_is_what_is_asked(case: str) -> None:
    (verb, value, gpu, message), body = CASES[case]
    assert request(verb, value, gpu=gpu, message=message) == body


MISTAKES = {
    "no such verb": (("explode", None, None, None), "expected one of xid"),
    "xid without code": (("xid", None, None, None), "expected its code"),
    "xid that is no number": (("xid", "seventy", None, None), "a whole number"),
    "xid out of range": (("xid", "0", None, None), ">= 1"),
    "gpu out of range": (("xid", "79", -1, None), ">= 0"),
    "temperature that is no number": (("temperature", "hot", None, None), "degrees"),
    "temperature that is not finite": (("temperature", "nan", None, None), "temperature"),
    "temperature of a star": (("temperature", "5800", None, None), "<= 200"),
    "silence that is no duration": (("silence", "long", None, None), "a duration"),
    "silence of a year": (("silence", "8760h", None, None), "<= 86400"),
    "idle with a value": (("idle", "2", None, None), "takes no value"),
    "busy on one gpu": (("busy", None, 3, None), "the whole machine"),
    "ecc with words": (("ecc", None, None, "words"), "prints no line"),
}


@pytest.mark.parametrize("case", MISTAKES)
def test_a_mistake_is_named_before_anything_is_sent(case: str) -> None:
    (verb, value, gpu, message), expected = MISTAKES[case]
    with pytest.raises(Failure, match=expected) as caught:
        request(verb, value, gpu=gpu, message=message)
    assert caught.value.status == WRONG


def test_the_command_is_found_and_says_in_one_line_why_it_could_not() -> None:
    unreachable = CliRunner().invoke(app, ["inject", "n1", "xid", "79", "--gpu", "3", "-s", "http://127.0.0.1:9"])
    assert unreachable.exit_code == 1
    assert "cannot be reached" in unreachable.stderr
    wrong = CliRunner().invoke(app, ["inject", "n1", "xid"])
    assert (wrong.exit_code, wrong.stdout) == (2, "")
    assert wrong.stderr.count("\n") == 1
