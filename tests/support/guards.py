"""Freezes and holds in a line."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

from navarch_common.model.pool import Guard

T0 = datetime(2026, 1, 1, tzinfo=UTC)


def freeze(number: int = 1, *, active: bool = True, pool: str | None = None, **fields: Any) -> Guard:
    name = f"freeze/{pool}" if pool else "freeze"
    values = {"actor": "operator:ann", "reason": "stop", "at": T0}
    return Guard(name=name, active=active, pool=pool, number=number, **(values | fields))


def hold(
    number: int = 1, *, active: bool = True, node: str | None = None, pool: str = "training", **fields: Any
) -> Guard:
    name = f"hold/node/{node}" if node else f"hold/pool/{pool}"
    values = {"actor": "operator:ann", "reason": "fans", "at": T0, "until": T0 + timedelta(hours=4)}
    return Guard(name=name, active=active, kind="hold", pool=pool, node=node, number=number, **(values | fields))
