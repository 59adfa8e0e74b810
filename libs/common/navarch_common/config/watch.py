"""Watches the configuration file, so that a change comes into force without a restart.

Looking once a second at modification time, size and inode is plain and works everywhere: on network filesystems, for
editors that rename, and for Kubernetes' ConfigMaps, which swap a link. A hash decides whether anything changed.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Mapping
from pathlib import Path

from navarch_common.config.installed import Installed
from navarch_common.config.load import Loaded, load_file
from navarch_common.config.problems import ConfigError

Stamp = tuple[int, int, int, int] | None
"""Device, inode, size and modification time in ns. None where there is no file."""


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
    is there at once. The same mistakes are told once. Never ends by itself; a file that is gone is a ConfigError.
    """
    last: str | None = known_sha256
    seen: Stamp = None
    is_first = True
    while True:
        stamp = await asyncio.to_thread(_stamp, path)
        if is_first or stamp != seen:
            outcome = await asyncio.to_thread(_load, path, env, insecure, available)
            # A file that was changed while we read it shows another stamp now, and is read again.
            seen, is_first = stamp, False
            if (identity := _identity(outcome)) != last:
                last = identity
                yield outcome
        await asyncio.sleep(period_s)


def _stamp(path: str | os.PathLike[str]) -> Stamp:
    try:
        found = Path(path).stat()
    except (OSError, ValueError):
        return None
    return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns


def _load(
    path: str | os.PathLike[str], env: Mapping[str, str], insecure: bool, available: Installed | None
) -> Loaded | ConfigError:
    try:
        return load_file(path, env, insecure=insecure, available=available)
    except ConfigError as error:
        return error


def _identity(outcome: Loaded | ConfigError) -> str:
    return outcome.sha256 if isinstance(outcome, Loaded) else str(outcome)
