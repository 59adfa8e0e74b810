"""Files that were made to hurt are refused fast, with a clear word."""

import time
from pathlib import Path

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from navarch_common.config.load import load_file, load_text
from navarch_common.config.problems import ConfigError

BOMB = "a: &a [x,x,x,x,x,x,x,x,x,x]\n" + "".join(
    f"{chr(98 + n)}: &{chr(98 + n)} [{','.join([f'*{chr(97 + n)}'] * 10)}]\n" for n in range(20)
)

HOSTILE = {
    "alias bomb": (BOMB, "values once every alias is written out"),
    "merge bomb": (
        "a: &a {k0: 1, k1: 1, k2: 1, k3: 1}\n"
        + "".join(
            f"b{n}: &b{n} {{x: *{'a' if not n else f'b{n - 1}'}, y: *{'a' if not n else f'b{n - 1}'}}}\n"
            for n in range(60)
        ),
        "(values once every alias|more than 32 deep)",
    ),
    "brackets": ("[" * 500_000, "nested more than 32 deep"),
    "braces": ("{a: " * 200_000, "nested more than 32 deep"),
    "dashes": ("- " * 200_000, "nested more than 32 deep"),
    "empty": ("", "the file is empty"),
    "tabs": ("\t\t\n\tpools:\n", "a tab cannot indent"),
    "nul": ("pools:\x00", "not readable as YAML"),
    "surrogate": ("pools: \ud800", "found half a character at position 7"),
    "a megabyte and a byte": ("#" * (1_048_577), "larger than 1024 KiB"),
    "a megabyte in two-byte letters": ("#" + "é" * 600_000, "larger than 1024 KiB"),
    "a long key": ("k" * 100_000 + ": 1\n", "not readable as YAML|unknown key"),
    "spaces in a share": (
        "pools: {a: {max_nodes: 1, max_step_up: 'max(" + " " * 500_000 + "'}}",
        "expected a count",
    ),
    "a long number": (
        "pools: {a: {max_nodes: " + "9" * 500_000 + "}}",
        "expected a whole number",
    ),
}


@pytest.mark.parametrize(("text", "message"), HOSTILE.values(), ids=HOSTILE)
def test_a_hostile_text_is_refused_within_100_ms(text: str, message: str) -> None:
    began = time.perf_counter()
    with pytest.raises(ConfigError, match=message) as caught:
        load_text(text, "navarch.yaml", {})
    assert time.perf_counter() - began < 0.1
    assert len(str(caught.value)) < 20_000


def test_ten_thousand_unknown_keys_are_refused_within_a_few_seconds() -> None:
    began = time.perf_counter()
    with pytest.raises(ConfigError):
        load_text("".join(f"pools{n}: 1\n" for n in range(10_000)), "navarch.yaml", {})
    assert time.perf_counter() - began < 5


def test_a_file_of_fifty_megabytes_is_refused_within_100_ms(tmp_path: Path) -> None:
    file = tmp_path / "navarch.yaml"
    with file.open("wb") as opened:
        opened.truncate(50 * 1024 * 1024)
    began = time.perf_counter()
    with pytest.raises(ConfigError, match="larger than 1024 KiB"):
        load_file(file, {})
    assert time.perf_counter() - began < 0.1


def test_a_file_that_cannot_be_read_is_an_error_that_names_it(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"nowhere\.yaml: cannot be read: No such file"):
        load_file(tmp_path / "nowhere.yaml", {})
    with pytest.raises(ConfigError, match="cannot be read: Is a directory"):
        load_file(tmp_path, {})
    with pytest.raises(ConfigError, match="not a regular file"):
        load_file("/dev/null", {})
    with pytest.raises(ConfigError, match="cannot be read"):
        load_file("a\0b", {})


def test_a_file_that_is_not_utf_8_is_refused_at_the_byte(tmp_path: Path) -> None:
    file = tmp_path / "navarch.yaml"
    file.write_bytes(b"cluster: a\npools: \xff\n")
    with pytest.raises(ConfigError) as caught:
        load_file(file, {})
    assert str(caught.value) == f"{file}:2:8: expected text in UTF-8, found the byte 0xff"


@given(st.text(max_size=200))
@settings(max_examples=300, deadline=None)
def test_no_text_makes_the_loader_fail_in_any_other_way(text: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load_text(text, "navarch.yaml", {})
    assert caught.value.problems


_WORDS = st.sampled_from(
    [
        "pools",
        "a",
        "max_nodes",
        "providers",
        "here",
        "type",
        "local",
        "autoscaling",
        "health",
        "schedule",
        "days",
        "${X}",
    ]
)
_SCALARS = st.one_of(_WORDS, st.integers(-5, 5), st.booleans(), st.none(), st.floats(), st.sampled_from(["5m", "5%"]))
_TREES = st.recursive(
    _SCALARS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(_WORDS, inner, max_size=4),
    max_leaves=20,
)


@given(st.dictionaries(_WORDS, _TREES, max_size=4))
@settings(max_examples=300, deadline=None)
def test_no_tree_makes_the_loader_fail_in_any_other_way(tree: dict[str, object]) -> None:
    try:
        load_text(yaml.safe_dump(tree), "navarch.yaml", {})
    except ConfigError as error:
        told = error.problems
    else:
        return
    assert told
