"""The agent's settings: flags, each also as NAVARCH_AGENT_*, checked before anything starts."""

from __future__ import annotations

import argparse
import difflib
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import msgspec

from navarch_agent.commands import INTERVAL_S_MAX, INTERVAL_S_MIN
from navarch_agent.log.journald import JOURNALD
from navarch_agent.log.kmsg import DEVICE
from navarch_common.errors import NavarchError
from navarch_common.ids import ID_LENGTH_MAX, check_id

ENV_PREFIX = "NAVARCH_AGENT_"
NATS_URL = "NAVARCH_NATS_URL"


class SettingsError(NavarchError):
    """A setting is missing or wrong; the message names it and says what was expected."""


class AgentSettings(msgspec.Struct, frozen=True, kw_only=True):
    """All that an agent must be told."""

    server: str
    """NATS addresses with commas between, as `nats://10.0.0.5:4222`."""
    node: str
    pool: str
    generation: int = 1
    """Which machine behind this node id it is; the control plane drops what an older one says."""
    kmsg: Path | Literal["journald"] = DEVICE
    """The kernel log: the device, a file that is followed, or systemd's journal, read through `journalctl`."""
    driver: Literal["nvml", "fake"] = "nvml"
    gpu_count: int = 8
    """Of the simulated driver."""
    data_dir: Path = Path("/var/lib/navarch-agent")
    """Holds the spool. One agent at a time works in it."""
    boot_id: str = ""
    """Empty: the kernel's own."""
    heartbeat_interval_s: float = 5.0
    """Until the control plane says otherwise."""
    health_check_interval_s: float = 60.0
    checks: Path | None = None
    """A directory of executables, each of which is a check of the operator's own."""
    host_checks: bool = True
    """Look at disks, processes, network ports and services of the host. Never on a simulated machine."""
    subject_prefix: str = "navarch"
    credentials: Path | None = None
    """A NATS credentials file."""
    tls_ca: Path | None = None
    """Certificates of the authorities that may vouch for the NATS server."""
    otlp_endpoint: str = ""
    """Where traces go, over OTLP/HTTP; needs navarch-common's extra `telemetry`."""
    log_level: Literal["debug", "info", "warning", "error"] = "info"


def parse(argv: Sequence[str], environ: Mapping[str, str]) -> AgentSettings:
    """Read flags, and where a flag is missing its variable.

    Raises `SettingsError`; exits through argparse for `--help`, `--version` and unknown flags.
    """
    given = vars(_parser().parse_args(argv))
    values: dict[str, Any] = {}
    for flag in _FLAGS:
        raw, source = given.get(flag.field), f"--{flag.name}"
        if raw is None:
            raw, source = _from_environment(flag, environ)
        if raw is not None:
            values[flag.field] = _read(flag, raw, source)
    for field, name in (("server", "server"), ("node", "node-id"), ("pool", "pool")):
        if field not in values:
            raise SettingsError(f"--{name} is missing; it may also come from {_variables(name)}")
    if values.get("kmsg") == JOURNALD and values.get("driver") == "fake":
        raise SettingsError("--kmsg: a simulated machine (--driver fake) prints into a file, expected a path")
    return AgentSettings(**values)


def unknown_variables(environ: Mapping[str, str]) -> list[str]:
    """Return a sentence for each NAVARCH_AGENT_* variable that means nothing: a misspelt one would be ignored silently."""
    known = [_variable(flag.name) for flag in _FLAGS]
    sentences = []
    for name in sorted(environ):
        if name.startswith(ENV_PREFIX) and name not in known:
            near = difflib.get_close_matches(name, known, n=1)
            sentences.append(f"{name} means nothing to the agent" + (f"; did you mean {near[0]}?" if near else ""))
    return sentences


class _Flag(msgspec.Struct, frozen=True):
    name: str
    field: str
    read: Callable[[str], object]
    expected: str
    help: str
    switch: bool = False
    """Given without a value: `--name` for true, `--no-name` for false."""


def _variable(name: str) -> str:
    return ENV_PREFIX + name.upper().replace("-", "_")


def _variables(name: str) -> str:
    return f"{_variable(name)} or {NATS_URL}" if name == "server" else _variable(name)


def _from_environment(flag: _Flag, environ: Mapping[str, str]) -> tuple[str | None, str]:
    names = [_variable(flag.name), *((NATS_URL,) if flag.name == "server" else ())]
    name = next((name for name in names if environ.get(name)), None)
    return (None, "") if name is None else (environ[name], name)


def _read(flag: _Flag, raw: str, source: str) -> object:
    try:
        return flag.read(raw)
    except ValueError as error:
        raise SettingsError(f"{source}: expected {flag.expected}, found {raw[:100]!r}") from error


def _seconds(raw: str) -> float:
    """Read `5`, `5s`, `500ms`, `2m`, `1h`."""
    match = re.fullmatch(r"(\d{1,9}(?:\.\d{1,6})?)(ms|s|m|h)?", raw.strip())
    if match is None:
        raise ValueError(raw)
    seconds = float(match[1]) * {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0}[match[2] or "s"]
    if not INTERVAL_S_MIN <= seconds <= INTERVAL_S_MAX:
        raise ValueError(raw)
    return seconds


def _between(least: int, most: int) -> Callable[[str], int]:
    def read(raw: str) -> int:
        if not re.fullmatch(r"\d{1,10}", raw) or not least <= int(raw) <= most:
            raise ValueError(raw)
        return int(raw)

    return read


def _one_of(*words: str) -> Callable[[str], str]:
    def read(raw: str) -> str:
        if raw not in words:
            raise ValueError(raw)
        return raw

    return read


def _yes_or_no(raw: str) -> bool:
    if raw.lower() not in ("true", "false"):
        raise ValueError(raw)
    return raw.lower() == "true"


def _kernel_log(raw: str) -> Path | str:
    return raw if raw == JOURNALD else Path(raw)


def _matching(pattern: str) -> Callable[[str], str]:
    def read(raw: str) -> str:
        if not re.fullmatch(pattern, raw):
            raise ValueError(raw)
        return raw

    return read


_INTERVAL = f"a duration from {INTERVAL_S_MIN:g} s to {INTERVAL_S_MAX:g} s such as 5s"
_ID = f"1 to {ID_LENGTH_MAX} of a-z, 0-9 and '-'"
_ADDRESS = r"(?:nats|tls|ws|wss)://[^\s,]{1,255}"
_FLAGS = (
    _Flag(
        "server",
        "server",
        _matching(rf"{_ADDRESS}(?:,{_ADDRESS}){{0,15}}"),
        "one or more NATS addresses such as nats://10.0.0.5:4222, with commas between",
        "NATS address; several with commas between (also NAVARCH_NATS_URL)",
    ),
    _Flag("node-id", "node", lambda raw: check_id(raw, "node"), f"a node id ({_ID})", "this node's id"),
    _Flag("pool", "pool", lambda raw: check_id(raw, "pool"), f"a pool's id ({_ID})", "the pool that it belongs to"),
    _Flag("generation", "generation", _between(0, 1_000_000_000), "a whole number", "generation of this node (1)"),
    _Flag(
        "kmsg",
        "kmsg",
        _kernel_log,
        "a path or journald",
        "kernel log: /dev/kmsg, a file that is followed, or journald (by journalctl, a third of a second later)",
    ),
    _Flag(
        "driver", "driver", _one_of("nvml", "fake"), "nvml or fake", "GPU driver: nvml, or fake for a simulated machine"
    ),
    _Flag("gpu-count", "gpu_count", _between(0, 64), "a number from 0 to 64", "GPUs of the fake driver (8)"),
    _Flag("data-dir", "data_dir", Path, "a path", "where unsent reports are kept (/var/lib/navarch-agent)"),
    _Flag(
        "boot-id",
        "boot_id",
        _matching(r"[A-Za-z0-9_-]{1,64}"),
        "1 to 64 letters, digits, '-' or '_'",
        "id of this boot (the kernel's)",
    ),
    _Flag("heartbeat-interval", "heartbeat_interval_s", _seconds, _INTERVAL, "time between heartbeats (5s)"),
    _Flag("health-check-interval", "health_check_interval_s", _seconds, _INTERVAL, "time between health checks (60s)"),
    _Flag("checks", "checks", Path, "a directory", "run each executable here as a check of your own (docs/health.md)"),
    _Flag(
        "host-checks",
        "host_checks",
        _yes_or_no,
        "true or false",
        "look at the host's disks, processes, ports and services, too, or do not (yes, on a real machine)",
        switch=True,
    ),
    _Flag(
        "subject-prefix",
        "subject_prefix",
        _matching(r"[A-Za-z0-9_-]{1,32}(?:\.[A-Za-z0-9_-]{1,32}){0,3}"),
        "words of letters, digits, '-' and '_' with dots between",
        "first word of every subject (navarch)",
    ),
    _Flag("credentials", "credentials", Path, "a path", "NATS credentials file"),
    _Flag("tls-ca", "tls_ca", Path, "a path", "certificate authorities of the NATS server"),
    _Flag("otlp-endpoint", "otlp_endpoint", _matching(r"https?://\S{1,255}"), "an http address", "where traces go"),
    _Flag(
        "log-level",
        "log_level",
        _one_of("debug", "info", "warning", "error"),
        "debug, info, warning or error",
        "how much to log (info)",
    ),
)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="navarch-agent",
        description="Watches this GPU machine for Navarch. Every flag also comes from its NAVARCH_AGENT_* variable.",
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="store_true", help="print the version and exit")
    for flag in _FLAGS:
        if flag.switch:
            parser.add_argument(f"--{flag.name}", dest=flag.field, action="store_const", const="true", help=flag.help)
            parser.add_argument(
                f"--no-{flag.name}", dest=flag.field, action="store_const", const="false", help="do not"
            )
            continue
        parser.add_argument(
            f"--{flag.name}", dest=flag.field, metavar=flag.name.rpartition("-")[2].upper(), help=flag.help
        )
    return parser
