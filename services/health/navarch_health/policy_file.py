"""The policy in force: loaded at start, taken over when its file or the configuration's choice of file changes.

A file that cannot be used leaves the policy before in force, and is told: once for each state of the file.
"""

from __future__ import annotations

from pathlib import Path

from navarch_common.errors import NavarchError
from navarch_health.policy import Policy, PolicyError, default_policy, load_policy


class PolicyFile:
    """Follows one file, or none. Blocking, but for no longer than a small local file takes."""

    def __init__(self) -> None:
        self.policy = default_policy()
        self._path: Path | None = None
        self._state: tuple[int, int] | None = None

    def look(self, path: Path | None) -> Policy | None:
        """Returns the policy where another one is in force now, None where nothing changed.

        Raises `PolicyUnusable`, once for each state of the file; the policy before stays.
        """
        if path is None:
            changed = self._path is not None
            self._path, self._state, self.policy = None, None, default_policy()
            return self.policy if changed else None
        try:
            found = path.stat()
            state = (found.st_mtime_ns, found.st_size)
            if path == self._path and state == self._state:
                return None
            self._path, self._state = path, state
            self.policy = load_policy(path.read_text(encoding="utf-8"), str(path))
        except (OSError, UnicodeDecodeError) as error:
            missing = (0, -1)
            if path == self._path and self._state == missing:
                return None
            self._path, self._state = path, missing
            raise PolicyUnusable(f"{path}: cannot be read: {error}") from error
        except PolicyError as error:
            raise PolicyUnusable(str(error)) from error
        return self.policy


class PolicyUnusable(NavarchError):
    """The policy file cannot be used; the policy before stays in force."""
