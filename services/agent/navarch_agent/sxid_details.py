"""The rows that an NVSwitch prints after an SXid, folded into it. Pure.

The line that names the fault is reported at once, because a fatal one must not wait. Each row that follows makes the
same observation again, with more known: same time, same words, so that it is one more line of the same episode and the
same verdict. The driver prints a Severity row and one or two of Data (`_nvswitch_dump_error_entry` in the open driver).
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import datetime, timedelta

from msgspec import structs

from navarch_common.events.messages import Observation
from navarch_common.xid import KernelFault

_SEVERITY = re.compile(r"Severity (\d{1,9}) Engine instance (\d{1,9}) Sub-engine instance (\d{1,9})\b")
_DATA = re.compile(r"Data \{([^}]*)\}")
DATA_LENGTH_MAX = 512

_Key = tuple[str, int | None, str | None]
_Metrics = dict[str, float | int | str | bool]


@dataclass(slots=True)
class _Head:
    observation: Observation
    rows: int = 0


class SxidDetails:
    """Remembers the last SXids that were reported, by code, device and who told of them."""

    WINDOW = timedelta(seconds=1)
    ROWS_MAX = 4
    HEADS_MAX = 64

    def __init__(self) -> None:
        self._heads: dict[_Key, _Head] = {}

    def reported(self, fault: KernelFault, observation: Observation | None, source: str) -> None:
        """Take note of an SXid's report, or with None that this one was left out: its rows are not the last one's."""
        if fault.kind != "sxid":
            return
        key = (source, fault.code, fault.pci)
        self._heads.pop(key, None)
        while len(self._heads) >= self.HEADS_MAX:
            self._heads.pop(next(iter(self._heads)))
        if observation is not None:
            self._heads[key] = _Head(observation)

    def fold(self, fault: KernelFault, at: datetime, source: str) -> Observation | None:
        """Return what is known of the SXid that the row `fault` belongs to; None where none was reported just before."""
        head = self._heads.get((source, fault.code, fault.pci))
        if head is None or head.rows >= self.ROWS_MAX:
            return None
        since = at - head.observation.at
        said = _read(fault.message) if timedelta(0) <= since <= self.WINDOW else {}
        if not said:
            return None
        known = {name: value for name, value in head.observation.metrics.items() if name != "left_out"}
        if "data" in said and "data" in known:
            said["data"] = f"{known['data']}, {said['data']}"[:DATA_LENGTH_MAX]
        head.rows += 1
        head.observation = structs.replace(head.observation, metrics={**known, **said})
        return head.observation


def _read(message: str) -> _Metrics:
    if match := _SEVERITY.match(message):
        severity, engine, sub_engine = (int(number) for number in match.groups())
        return {"severity": severity, "engine_instance": engine, "sub_engine_instance": sub_engine}
    if match := _DATA.match(message):
        return {"data": match[1].strip()[:DATA_LENGTH_MAX]}
    return {}
