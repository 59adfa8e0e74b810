"""No id becomes part of a subject, a stream's name or a key before it was looked at."""

import inspect
import random
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from navarch_common.bus.matching import check_subject
from navarch_common.events.subjects import Subjects
from navarch_common.ids import InvalidId, check_id, is_id, new_node_id

BAD = [
    "*", ">", "a.b", "a b", "é", "ß", "n\n", "\n", "n\r\nPUB x 0", "N", "n_1", "-n", "n-", "", "n" * 64, "n" * 300, "n\x00",
    "../n", "n/..", "$JS", "{n}", "n:", "ｎ", "٣",
]  # fmt: skip
SUBJECTS = Subjects()
WITH_AN_ID: dict[str, Callable[[str], object]] = {
    "heartbeat": SUBJECTS.heartbeat,
    "health report": lambda bad: SUBJECTS.report(bad, "health"),
    "lifecycle report": lambda bad: SUBJECTS.report(bad, "lifecycle"),
    "command": SUBJECTS.command,
    "probe": SUBJECTS.probe,
    "inject": SUBJECTS.inject,
    "queue depth": SUBJECTS.queue_depth,
    "queue depth's source": lambda bad: SUBJECTS.queue_depth("training", bad),
    "events of a pool": lambda bad: SUBJECTS.events_of(pool=bad),
    "events of a node": lambda bad: SUBJECTS.events_of(node=bad),
    "wake": lambda bad: SUBJECTS.wake("health", bad),
    "plan": SUBJECTS.plan,
    "history": lambda bad: SUBJECTS.history("health", bad),
    "history of a node": lambda bad: SUBJECTS.history("health", "training", bad),
}
EMPTY_MEANS_NONE = {"queue depth's source", "events of a pool", "events of a node", "history of a node"}


@pytest.mark.parametrize("bad", BAD, ids=repr)
@pytest.mark.parametrize("what", WITH_AN_ID)
def test_a_subject_is_made_of_ids_alone(what: str, bad: str) -> None:
    if not bad and what in EMPTY_MEANS_NONE:
        return
    with pytest.raises(InvalidId, match="is not a valid id"):
        WITH_AN_ID[what](bad)


def test_every_subject_that_takes_an_id_is_looked_at_here() -> None:
    methods = {
        name
        for name, method in inspect.getmembers(Subjects, inspect.isfunction)
        if not name.startswith("_") and {"node", "pool"} & set(inspect.signature(method).parameters)
    }
    known = {"heartbeat", "report", "command", "probe", "inject", "queue_depth", "events_of", "wake", "plan", "history"}
    assert methods == known, "say in WITH_AN_ID what it does with a bad id"


@given(st.text(max_size=80))
def test_what_is_an_id_is_harmless_wherever_it_goes(text: str) -> None:
    if is_id(text):
        assert text.isascii()
        assert text == text.lower()
        assert check_subject(f"a.{text}.b").split(".") == ["a", text, "b"]
        assert text.strip("-") == text
    else:
        with pytest.raises(InvalidId):
            check_id(text)


@given(st.from_regex(r"\A[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?\Z"), st.integers())
def test_an_id_that_we_mint_is_one(pool: str, seed: int) -> None:
    assert is_id(new_node_id(pool, random.Random(seed)))
