"""A service as a later release might be: `python -m support.newer provisioner …`. Its records of nodes have a schema of
their own and a field that this release does not know."""

import sys
from collections.abc import Callable
from importlib import import_module
from typing import Any

from navarch_common.model.base import Family
from navarch_common.model.node import NODE

SCHEMA = NODE.schema + 1
FIELD = b'"from_the_future":"yes"'


def pretend() -> None:
    """From here on this process is of the next release."""
    encode: Callable[[Family[Any], Any], bytes] = Family.encode

    def with_field(self: Family[Any], record: Any) -> bytes:
        data = encode(self, record)
        return data[:-1] + b"," + FIELD + b"}" if self is NODE else data

    Family.encode = with_field  # type: ignore[method-assign]
    object.__setattr__(NODE, "schema", SCHEMA)


if __name__ == "__main__":
    service = sys.argv.pop(1)
    pretend()
    raise SystemExit(import_module(f"navarch_{service}.main").main())
