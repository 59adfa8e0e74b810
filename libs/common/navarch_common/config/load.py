"""From a file's text to a checked configuration, or to all of its mistakes."""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from msgspec.structs import replace

from navarch_common.config import document
from navarch_common.config.checks import check
from navarch_common.config.convert import Converter
from navarch_common.config.fold import fold
from navarch_common.config.installed import Installed, installed
from navarch_common.config.problems import ConfigError, Problem, Report
from navarch_common.config.schema import Config


@dataclass(frozen=True, slots=True)
class Loaded:
    """A configuration that may come into force."""

    config: Config
    text: str = field(repr=False)
    """As it stands in the file, variables not replaced: this is what a generation stores."""
    sha256: str
    """Of the text in UTF-8, hexadecimal."""


def load_file(
    path: str | os.PathLike[str],
    env: Mapping[str, str],
    *,
    insecure: bool = False,
    available: Installed | None = None,
) -> Loaded:
    """Read and check a file. Blocks for as long as the disk does; the checks take milliseconds.

    `insecure` is the flag of the command line: it holds whatever the file says. `available` is what may be used, by
    default what is installed. Raises ConfigError, also where the file cannot be read.
    """
    name = os.fspath(path)
    return load_text(read_text(name), name, env, insecure=insecure, available=available)


def load_text(
    text: str,
    name: str,
    env: Mapping[str, str],
    *,
    insecure: bool = False,
    available: Installed | None = None,
) -> Loaded:
    """Check a text. `name` stands in messages where a file's name would. See `load_file`."""
    encoded = _encoded(text, name)
    report = Report(name)
    available = available or installed()
    root = fold(document.parse(text, report))
    config = Converter(report, env, available).section(root, Config)
    if config is not None:
        config = _settled(config, insecure=insecure)
        check(config, report, available)
    problems = report.problems()
    if config is None or problems:
        raise ConfigError(problems)
    return Loaded(config, text, hashlib.sha256(encoded).hexdigest())


_TOO_LARGE = f"larger than {document.TEXT_BYTES_MAX // 1024} KiB, which no configuration needs"


def _encoded(text: str, name: str) -> bytes:
    if len(text) > document.TEXT_BYTES_MAX:
        raise _refusal(name, _TOO_LARGE)
    try:
        encoded = text.encode()
    except UnicodeEncodeError as error:
        raise _refusal(name, f"expected text, found half a character at position {error.start}") from None
    if len(encoded) > document.TEXT_BYTES_MAX:
        raise _refusal(name, _TOO_LARGE)
    return encoded


def _settled(config: Config, *, insecure: bool) -> Config:
    """Fill in what only the whole file can say."""
    only = next(iter(config.providers)) if len(config.providers) == 1 else None
    pools = {
        name: pool if pool.provider or pool.providers or only is None else replace(pool, provider=only)
        for name, pool in config.pools.items()
    }
    return replace(config, pools=pools, insecure=config.insecure or insecure)


def read_text(name: str) -> str:
    """The text of a file. Raises ConfigError where it cannot be read, is no UTF-8, or is too large."""
    try:
        with Path(name).open("rb") as file:
            if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
                raise _refusal(name, "not a regular file")
            data = file.read(document.TEXT_BYTES_MAX + 1)
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        raise _refusal(name, f"cannot be read: {reason}") from error
    if len(data) > document.TEXT_BYTES_MAX:
        raise _refusal(name, _TOO_LARGE)
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        before = data[: error.start]
        line, column = before.count(b"\n") + 1, error.start - before.rfind(b"\n")
        message = f"expected text in UTF-8, found the byte 0x{data[error.start]:02x}"
        raise ConfigError([Problem(file=name, line=line, column=column, message=message)]) from None


def _refusal(name: str, message: str) -> ConfigError:
    return ConfigError([Problem(file=name, message=message)])
