"""Watches the configuration file, so that a change comes into force without a restart.

Reading the whole file once a second is plain and sees everything: editors that rename, Kubernetes' ConfigMaps that
swap a link, network filesystems, and two saves within one tick of the file's clock. A file is at most 1 MiB, and it is
parsed only when its text is another one.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Mapping

from navarch_common.config.installed import Installed
from navarch_common.config.load import Loaded, load_text, read_text
from navarch_common.config.problems import ConfigError


async def watch(
    path: str | os.PathLike[str],
    env: Mapping[str, str],
    *,
    known_sha256: str | None = None,
    insecure: bool = False,
    available: Installed | None = None,
    period_s: float = 1.0,
) -> AsyncIterator[Loaded | ConfigError]:
    """Give what the file holds whenever that changes: a configuration, or why it cannot be one.

    `known_sha256` is the text in force: it is not given again until the file has said something else. None gives what
    is there at once. A change is given when two looks in a row saw the same, so that nobody acts on a file that is
    half written. The same mistakes are told once. Never ends by itself; a file that is gone is a ConfigError.
    """
    name = os.fspath(path)
    seen: str | ConfigError | None = None
    looked_at: str | ConfigError | None = None
    given = known_sha256
    while True:
        found = await asyncio.to_thread(_read, name)
        is_first, is_settled = seen is None, _same(found, seen)
        seen = found
        if (is_first or is_settled) and not _same(found, looked_at):
            looked_at = found
            outcome = await asyncio.to_thread(_checked, found, name, env, insecure, available)
            if (identity := _identity(outcome)) != given:
                given = identity
                yield outcome
        await asyncio.sleep(period_s)


def _read(name: str) -> str | ConfigError:
    try:
        return read_text(name)
    except ConfigError as error:
        return error


def _same(one: str | ConfigError | None, other: str | ConfigError | None) -> bool:
    if isinstance(one, ConfigError) and isinstance(other, ConfigError):
        return str(one) == str(other)
    return one == other


def _checked(
    found: str | ConfigError, name: str, env: Mapping[str, str], insecure: bool, available: Installed | None
) -> Loaded | ConfigError:
    if isinstance(found, ConfigError):
        return found
    try:
        return load_text(found, name, env, insecure=insecure, available=available)
    except ConfigError as error:
        return error


def _identity(outcome: Loaded | ConfigError) -> str:
    return outcome.sha256 if isinstance(outcome, Loaded) else str(outcome)
