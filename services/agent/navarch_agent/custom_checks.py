"""What operators' own checks say, and what that tells a policy. Pure: exit codes and text in, observations out.

A check is an executable. It prints either a line as the plugins of Nagios do (`text | name=value;…`, with exit code 0 for
OK, 1 warning, 2 critical, 3 unknown) or JSON: one object, or a list of them, each
`{"status": "ok|warning|critical|unknown", "message": …, "gpu": INDEX, "metrics": {…}}`. Of a GPU's finding the status in
the JSON counts, whatever the exit code. What a check cannot tell, and a check that fails, is unknown: nothing begins and
nothing ends.
"""

from __future__ import annotations

import re
from datetime import datetime
from pathlib import Path
from typing import Annotated, Final, Literal, Protocol

import msgspec
from msgspec import Meta

from navarch_agent.conditions import Conditions, Figures
from navarch_common.errors import NavarchError
from navarch_common.events.messages import Observation
from navarch_common.model.base import Name
from navarch_common.model.gpu import Gpu, GpuIndex

EVENT_TYPE: Final = "check"
CHECKS_MAX: Final = 32
FINDINGS_MAX: Final = 64
FIGURES_MAX: Final = 24
MESSAGE_MAX: Final = 1000
_FIGURE: Final = re.compile(r"('[^'=]{1,64}'|[^\s'=]{1,64})=(-?[0-9]{1,15}(?:\.[0-9]{1,9})?)")
"""One of a Nagios plugin's figures; its unit and its limits are left out."""
_BY_EXIT: Final[dict[int, Status]] = {0: "ok", 1: "warning", 2: "critical", 3: "unknown"}

Status = Literal["ok", "warning", "critical", "unknown"]


class BadOutput(NavarchError):
    """A check printed something that is none of the two forms."""


class Finding(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a check found, of the machine or of one GPU."""

    status: Status
    message: Annotated[str, Meta(max_length=4096)] = ""
    gpu: GpuIndex | None = None
    metrics: Annotated[dict[Name, float | int | str | bool], Meta(max_length=FIGURES_MAX)] = {}


def read_output(exit_code: int, output: str) -> tuple[Finding, ...]:
    """What a check says that ended with `exit_code` and printed `output`. Raises `BadOutput`."""
    text = output.strip()
    if text[:1] in ("{", "["):
        return _from_json(text)
    if exit_code not in _BY_EXIT:
        raise BadOutput(f"exit code {exit_code}: expected 0 (OK), 1 (warning), 2 (critical) or 3 (unknown)")
    line, _, figures = text.partition("\n")[0].partition("|")
    metrics: dict[str, float | int | str | bool] = {
        name.strip("'"): float(value) for name, value in _FIGURE.findall(figures)[:FIGURES_MAX]
    }
    return (Finding(status=_BY_EXIT[exit_code], message=line.strip()[:MESSAGE_MAX], metrics=metrics),)


def _from_json(text: str) -> tuple[Finding, ...]:
    try:
        found = msgspec.json.decode(text, type=Finding | list[Finding])
    except (msgspec.DecodeError, RecursionError) as error:
        raise BadOutput(f"its JSON is not a finding: {error}") from error
    findings = tuple(found) if isinstance(found, list) else (found,)
    if len(findings) > FINDINGS_MAX:
        raise BadOutput(f"{len(findings)} findings: expected at most {FINDINGS_MAX}")
    return findings


class CheckRunner(Protocol):
    """Finds and runs the checks of one machine. Blocks."""

    def find(self) -> dict[str, Path]:
        """The checks by name. Raises `OSError`, and `BadOutput` where none of them can be trusted."""
        ...

    def run(self, path: Path) -> tuple[Finding, ...]:
        """Run one to its end. Raises `OSError` and `BadOutput`."""
        ...


class CustomChecks:
    """Follows what the checks of one machine find."""

    def __init__(self) -> None:
        self._conditions = Conditions()
        self._standing: dict[str, set[GpuIndex | None]] = {}
        """By check, of which GPUs (None: of the machine) something stands."""

    def tell_again(self) -> None:
        """What stands is told with the next run of its check."""
        self._conditions.tell_again()

    def look(self, check: str, findings: tuple[Finding, ...], gpus: tuple[Gpu, ...], at: datetime) -> list[Observation]:
        """What the check's newest findings tell. What it no longer mentions is over, unless it says that it cannot tell."""
        standing = self._standing.setdefault(check, set())
        about = {finding.gpu: finding for finding in findings}
        blind = any(finding.status == "unknown" and finding.gpu is None for finding in findings)
        for gpu in standing - about.keys():
            about[gpu] = Finding(status="unknown" if blind else "ok", gpu=gpu)
        told = []
        for index, finding in about.items():
            holds = None if finding.status == "unknown" else finding.status != "ok"
            told += self._follow(check, finding, holds, gpus, at)
            if holds is not None:
                (standing.add if holds else standing.discard)(index)
        return told

    def forget(self, check: str) -> None:
        """The check is not there any more."""
        self._standing.pop(check, None)

    @property
    def known(self) -> set[str]:
        """The checks that have run."""
        return set(self._standing)

    def _follow(
        self, check: str, finding: Finding, holds: bool | None, gpus: tuple[Gpu, ...], at: datetime
    ) -> list[Observation]:
        gpu = next((one for one in gpus if one.index == finding.gpu), None)

        def tell(message: str, metrics: Figures) -> Observation:
            named = {**metrics, "kind": f"check-{check}", "level": finding.status}
            return Observation(
                at=at,
                event_type=EVENT_TYPE,
                pci="" if gpu is None else gpu.pci,
                gpu_index=-1 if finding.gpu is None else finding.gpu,
                gpu_uuid="" if gpu is None else gpu.uuid,
                gpu_serial="" if gpu is None else gpu.serial,
                message=message,
                metrics=named,
                source=EVENT_TYPE,
            )

        worse = 1.0 if finding.status == "critical" else 0.0
        said = finding.message[:MESSAGE_MAX] or f"the check {check} says {finding.status}"
        return self._conditions.follow((check, finding.gpu), holds, at, tell, said, finding.metrics, amount=worse)
