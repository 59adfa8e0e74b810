"""Why a request is not done: one error with a stable code, which each door words in its own way."""

from collections.abc import Iterable
from difflib import get_close_matches

import structlog

from navarch_common.bus.base import BusError
from navarch_common.errors import NavarchError
from navarch_common.store.base import StoreError

log = structlog.get_logger(__name__)


class Refused(NavarchError):
    """The request was understood well enough to know that it will not be done. Nothing was changed, unless it says so."""

    def __init__(self, status: int, code: str, detail: str, *, field: str = "") -> None:
        """`status` is HTTP's; `field` names the parameter that is wrong."""
        super().__init__(detail)
        self.status, self.code, self.detail, self.field = status, code, detail, field


def bad(code: str, detail: str, *, field: str = "") -> Refused:
    """The request itself is malformed."""
    return Refused(400, code, detail, field=field)


def invalid(code: str, detail: str, *, field: str = "") -> Refused:
    """Well-formed, and what it says cannot be."""
    return Refused(422, code, detail, field=field)


def conflict(code: str, detail: str) -> Refused:
    """It could be, but not as things are now."""
    return Refused(409, code, detail)


def not_found(what: str, name: str, known: Iterable[str] = ()) -> Refused:
    near = nearest(name, known)
    return Refused(404, "not-found", f"there is no {what} {name!r:.100}{near}")


def unavailable(code: str, detail: str) -> Refused:
    """What is needed to answer does not answer now. Whether a change was made is not known."""
    return Refused(503, code, detail)


def nearest(word: str, known: Iterable[str]) -> str:
    """`; did you mean 'pool'?`, or nothing where no known word is like it."""
    matches = get_close_matches(word[:128].lower(), sorted(known), n=1, cutoff=0.6)
    return f"; did you mean {matches[0]!r}?" if matches else ""


def refusal_of(error: Exception) -> Refused:
    """What went wrong, as a refusal. What nobody expected is a 500 that is logged, and says nothing of our insides."""
    if isinstance(error, Refused):
        return error
    if isinstance(error, StoreError):
        return Refused(
            503, "state-unavailable", f"the store does not answer; whether anything changed is not known ({error})"
        )
    if isinstance(error, BusError):
        return Refused(503, "bus-unavailable", f"the bus does not answer ({error})")
    if isinstance(error, TimeoutError):
        return Refused(504, "timeout", "it took too long; whether anything changed is not known")
    log.error("a request failed", error=f"{type(error).__name__}: {error}", exc_info=error)
    return Refused(500, "internal", "something is wrong here, and is in the gateway's log")
