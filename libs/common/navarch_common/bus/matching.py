"""Subjects and patterns as NATS understands them: `*` stands for one token, a last `>` for one or more."""

import re
from functools import lru_cache

from navarch_common.errors import NavarchError

SUBJECT_LENGTH_MAX = 512
REMEMBERED = 65_536
"""Answers kept: a fleet speaks on the same subjects again and again."""

_KV_KEY = re.compile(r"\A[-/_=a-zA-Z0-9]+(?:\.[-/_=a-zA-Z0-9]+)*\Z")


class BadSubject(NavarchError, ValueError):
    """A subject that no message can travel on."""


@lru_cache(maxsize=REMEMBERED)
def check_subject(subject: str) -> str:
    """Returns a subject to publish on. Raises `BadSubject` for empty tokens, wildcards, spaces and control characters."""
    good = 0 < len(subject) <= SUBJECT_LENGTH_MAX and all(_is_literal(part) for part in subject.split("."))
    if not good:
        raise BadSubject(f"{subject!r:.120} is no subject: dot-separated tokens without spaces or wildcards are")
    return subject


def kv_subject(bucket: str, key: str) -> str:
    """The subject of a bucket's entry. Raises `BadSubject` where the key could not be one."""
    if not _KV_KEY.match(key):
        raise BadSubject(f"{key!r:.100} is no key of a bucket: letters, digits and -/_=. are")
    return f"$KV.{bucket}.{key}"


def _is_literal(part: str) -> bool:
    return bool(part) and part not in ("*", ">") and part.isprintable() and " " not in part


@lru_cache(maxsize=REMEMBERED)
def matches(pattern: str, subject: str) -> bool:
    """Whether a subscription to `pattern` hears `subject`."""
    wanted, found = pattern.split("."), subject.split(".")
    for index, part in enumerate(wanted):
        if part == ">":
            return len(found) > index
        if index >= len(found) or part not in ("*", found[index]):
            return False
    return len(wanted) == len(found)


def overlap(one: str, other: str) -> bool:
    """Whether some subject matches both patterns."""
    left, right = one.split("."), other.split(".")
    for a, b in zip(left, right, strict=False):
        if ">" in (a, b):
            return True
        if "*" not in (a, b) and a != b:
            return False
    return len(left) == len(right)
