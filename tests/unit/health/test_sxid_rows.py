"""The rows after an SXid come as further sightings of it: one episode, one verdict, in whatever order they arrive."""

from __future__ import annotations

import itertools

import pytest
from msgspec import structs

from navarch_common.events.messages import HealthReport, Observation
from navarch_common.model.health import HealthRecord
from navarch_health.fold import Limits, fold_report
from navarch_health.policy import default_policy
from support.health_world import context, node, observation, record, report

HEAD = observation(
    0.5,
    event_type="sxid",
    code=20034,
    pci="0000:86:00",
    message="Fatal, Link 30 LTSSM Fault Up",
    metrics={"fatal": True},
)
ENGINE = {"severity": 1, "engine_instance": 60, "sub_engine_instance": 2}
SEVERITY = structs.replace(HEAD, metrics={**HEAD.metrics, **ENGINE})
DATA = structs.replace(HEAD, metrics={**HEAD.metrics, **ENGINE, "data": "0x50610002, 0x10100030"})


def after(*observations: tuple[int, Observation]) -> HealthRecord:
    before = record()
    for sequence, seen in observations:
        said: HealthReport = report(seen, sequence=sequence)
        change = fold_report(before, node(), said, default_policy().judge, Limits(), context(1.0)).change
        before = before if change is None else change.record
    return before


@pytest.mark.parametrize("order", list(itertools.permutations([(1, HEAD), (2, SEVERITY), (3, DATA)])))
def test_rows_are_lines_of_the_same_episode_and_change_no_verdict(order: tuple[tuple[int, Observation], ...]) -> None:
    alone, whole = after((1, HEAD)), after(*order)
    (episode,) = whole.episodes
    assert (episode.code, episode.count, episode.lines) == ("sxid-20034", 1, 3)
    (one,), (other,) = alone.entities.values(), whole.entities.values()
    assert (one.status, one.rule, one.code, one.action) == (other.status, other.rule, other.code, other.action)
