"""Answers to wishes, as a record keeps them. Pure."""

from collections.abc import Mapping
from datetime import datetime

from navarch_common.model.wish import Answer, Outcome
from navarch_provisioner.news import Why

ANSWERS_MAX = 32
"""Answers that a record keeps: the newest. The record itself holds up to 64."""


def answer(answers: Mapping[str, Answer], wish: str, outcome: Outcome, why: Why, now: datetime) -> dict[str, Answer]:
    """`answers` with one more; the oldest give way."""
    said = Answer(at=now, outcome=outcome, code=why.code, reason=why.text[:1024])
    kept = {**{id_: old for id_, old in answers.items() if id_ != wish}, wish: said}
    return dict(sorted(kept.items(), key=lambda item: item[1].at)[-ANSWERS_MAX:])


def conclude(answers: Mapping[str, Answer], outcome: Outcome, why: Why, now: datetime) -> dict[str, Answer]:
    """`answers` with everything that was under way settled."""
    settled = Answer(at=now, outcome=outcome, code=why.code, reason=why.text[:1024])
    return {id_: settled if old.outcome == "accepted" else old for id_, old in answers.items()}
