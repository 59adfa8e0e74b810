"""Identifiers of nodes, pools, clusters and providers: one pattern, checked wherever an id enters.

An id becomes part of a NATS subject, a Redis key, a file name and a cloud tag, so it may hold nothing that means
something to any of them. The whole string must match: Python's `$` would let a trailing newline through.
"""

import random
import re
from typing import Annotated

from msgspec import Meta

from navarch_common.errors import NavarchError

ID_PATTERN = r"\A[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?\Z"
ID_LENGTH_MAX = 63

Id = Annotated[str, Meta(pattern=ID_PATTERN, max_length=ID_LENGTH_MAX)]
"""A node's, pool's, cluster's or provider's id: `[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?`."""

_ID = re.compile(ID_PATTERN)
_SUFFIX_ALPHABET = "bcdfghjkmnpqrstvwxz2456789"
"""No vowels, so that no word appears by chance, and no characters that look alike."""
_SUFFIX_LENGTH = 7
_SUFFIXES = len(_SUFFIX_ALPHABET) ** _SUFFIX_LENGTH


class InvalidId(NavarchError, ValueError):
    """A string that is no valid id was offered as one."""

    def __init__(self, what: str, value: object) -> None:
        super().__init__(
            f"{what} {value!r:.100} is not a valid id: 1 to {ID_LENGTH_MAX} of a-z, 0-9 and '-', "
            "starting and ending with a letter or digit"
        )


def check_id(value: object, what: str = "id") -> str:
    """Returns `value` when it is a valid id. Raises `InvalidId`, naming `what`, when it is not."""
    if isinstance(value, str) and _ID.match(value):
        return value
    raise InvalidId(what, value)


def is_id(value: object) -> bool:
    return isinstance(value, str) and _ID.match(value) is not None


def new_node_id(pool: str, rng: random.Random) -> str:
    """Mints a node id such as `training-k7x2mpd`: the pool's name, cut where needed, and a random suffix."""
    number, suffix = rng.randrange(_SUFFIXES), ""
    for _ in range(_SUFFIX_LENGTH):
        number, letter = divmod(number, len(_SUFFIX_ALPHABET))
        suffix += _SUFFIX_ALPHABET[letter]
    head = pool[: ID_LENGTH_MAX - 1 - _SUFFIX_LENGTH].rstrip("-")
    return check_id(f"{head}-{suffix}", "node")


def new_token(rng: random.Random) -> str:
    """Mints a random id of 32 hexadecimal digits: a request id, an incarnation, a launch token."""
    return f"{rng.getrandbits(128):032x}"
