"""What may be asked, field by field: the same for both doors. An unknown field is an error that names the nearest."""

import re
from datetime import datetime
from typing import Annotated, Any, TypeVar
from urllib.parse import unquote

import msgspec
from msgspec import Meta, Struct

from navarch_common.config import parse_duration
from navarch_common.ids import Id, is_id
from navarch_common.model.base import Count
from navarch_common.model.pool import FreezeLevel
from navarch_common.model.wish import ChangeVerb, NodeVerb, PoolVerb
from navarch_gateway.refusal import bad, invalid, nearest

T = TypeVar("T", bound=Struct)

RequestId = Annotated[str, Meta(min_length=1, max_length=128, pattern=r"\A[A-Za-z0-9][A-Za-z0-9._:-]*\Z")]
"""The caller's own name for a request: the same again is the same wish."""
WishLife = Annotated[float, Meta(ge=1.0, le=7 * 86_400.0)]
Hold = Annotated[float, Meta(ge=1.0, le=366 * 86_400.0)]
Sentence = Annotated[str, Meta(max_length=512, pattern=r"\A[^\x00-\x08\x0b-\x1f\x7f]*\Z")]
"""A person's words: no control characters, which would play tricks on the terminals that show them."""

WISH_LIFE_S = 3600.0
"""A wish that nobody has answered for so long is no longer what the operator wants."""
HOLD_S = 4 * 3600.0
"""How long a hold lasts where nobody says: the hours of a shift. No hold is for ever by oversight."""
ANONYMOUS = "operator:anonymous"
LIMIT_MAX = 5000
_ACTOR = re.compile(r"\A(operator:[^\x00-\x20\x7f][^\x00-\x1f\x7f]{0,98}|kubernetes|slurm)\Z")
"""Whoever may ask from outside. A service's own name is not among them."""


class Ask(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A request's body."""


class NodeAsk(Ask, frozen=True, kw_only=True):
    verb: NodeVerb
    reason: Sentence = ""
    force: bool = False
    request_id: RequestId | None = None
    expires_in_s: WishLife = WISH_LIFE_S


class PoolAsk(Ask, frozen=True, kw_only=True):
    verb: PoolVerb
    nodes: Count | None = None
    """`scale` alone."""
    for_s: Hold | None = None
    """How long the size holds on an autoscaled pool; None is one cooldown."""
    reason: Sentence = ""
    request_id: RequestId | None = None
    expires_in_s: WishLife = WISH_LIFE_S


class ChangeAsk(Ask, frozen=True, kw_only=True):
    verb: ChangeVerb
    reason: Sentence = ""
    request_id: RequestId | None = None
    expires_in_s: WishLife = WISH_LIFE_S


class FreezeAsk(Ask, frozen=True, kw_only=True):
    level: FreezeLevel = "all"
    pool: Id | None = None
    for_s: Hold | None = None
    reason: Sentence


class UnfreezeAsk(Ask, frozen=True, kw_only=True):
    pool: Id | None = None
    reason: Sentence = ""


class HoldAsk(Ask, frozen=True, kw_only=True):
    target: Id
    """A node or a pool."""
    for_s: Hold = HOLD_S
    reason: Sentence


class ReleaseAsk(Ask, frozen=True, kw_only=True):
    target: Id
    reason: Sentence = ""


class ConfigAsk(Ask, frozen=True, kw_only=True):
    """A configuration file, as it is written."""

    text: Annotated[str, Meta(max_length=1_000_000)]
    source: Annotated[Sentence, Meta(min_length=1)] = "navarch.yaml"
    """What mistakes in it are told of."""


class ReplayAsk(Ask, frozen=True, kw_only=True):
    """Which dead letters to put back: some, or all that were not put back yet."""

    sequences: Annotated[tuple[Annotated[int, Meta(ge=1, le=2**53)], ...], Meta(max_length=1000)] = ()
    all: bool = False
    reason: Sentence = ""


class LeakAsk(Ask, frozen=True, kw_only=True):
    machines: Annotated[
        tuple[Annotated[str, Meta(min_length=1, max_length=600)], ...], Meta(min_length=1, max_length=1000)
    ]
    """Each as `<provider>/<instance>`, or the instance alone where one provider has it."""
    reason: Sentence = ""
    request_id: RequestId | None = None


class AdoptInstallationAsk(Ask, frozen=True, kw_only=True):
    installation: Id
    reason: Sentence = ""


class LeaveSafeModeAsk(Ask, frozen=True, kw_only=True):
    reason: Annotated[Sentence, Meta(min_length=1)]


class NodeQuery(Struct, frozen=True, kw_only=True):
    """Which nodes. Empty is any."""

    pool: str = ""
    provider: str = ""
    region: str = ""
    status: str = ""
    health: str = ""
    labels: dict[str, str] = {}
    terminated: bool = False


class Page(Struct, frozen=True, kw_only=True):
    limit: int = 1000
    after: str = ""
    """The last id of the page before."""


class EventQuery(Struct, frozen=True, kw_only=True):
    """Which events. Empty is any; `what` may be `*`."""

    pool: str = ""
    node: str = ""
    kind: str = ""
    what: str = ""
    since: datetime | None = None


class AuditQuery(Struct, frozen=True, kw_only=True):
    """Which entries of the audit. Empty is any."""

    actor: str = ""
    action: str = ""
    pool: str = ""
    node: str = ""
    since: datetime | None = None


def read_ask(fields: Any, as_type: type[T]) -> T:
    """Raises `Refused`, naming the field, for whatever is no such ask."""
    if not isinstance(fields, dict):
        raise invalid("bad-body", f"expected a JSON object, found {type(fields).__name__}")
    names = as_type.__struct_fields__
    for name in fields:
        if name not in names:
            hint = nearest(name, names) or f"; known are {', '.join(names)}"
            raise invalid("unknown-field", f"unknown field {name!r:.100}{hint}", field=name[:100])
    try:
        return msgspec.convert(fields, as_type)
    except msgspec.ValidationError as error:
        raise invalid("bad-field", _plainly(error), field=_field_of(error)) from error


def read_actor(header: str | None) -> str:
    """`operator:NAME`, as the header gives it, percent-encoded where it is not ASCII. Raises `Refused`."""
    if not header:
        return ANONYMOUS
    actor = unquote(header[:512])
    if not _ACTOR.match(actor):
        raise bad(
            "bad-actor",
            f"{actor!r:.120} is no actor: expected operator:NAME, kubernetes or slurm",
            field="X-Navarch-Actor",
        )
    return actor


def read_id(text: str, what: str) -> str:
    if not is_id(text):
        raise bad(
            "bad-id", f"{text!r:.100} is no {what} id: expected 1 to 63 of a-z, 0-9 and '-', a letter or digit at both ends",
            field=what,
        )  # fmt: skip
    return text


def read_since(text: str, now: datetime) -> datetime:
    """A time in RFC 3339 with its zone, or how long ago: `2h`. Raises `Refused`."""
    try:
        if text[:1].isdigit() and "-" not in text[:5]:
            return now - parse_duration(text)
        at = msgspec.convert(text, datetime, strict=False)
        if at.tzinfo is None:
            raise ValueError("no zone")
        return at
    except (ValueError, OverflowError) as error:
        raise bad(
            "bad-since",
            f"{text!r:.60} is no time: expected 2026-01-31T12:00:00Z, or how long ago, such as 2h",
            field="since",
        ) from error


_TYPE = re.compile(r"\A(?P<kind>[a-z]{1,32}|\*)(?:\.(?P<what>[a-z][a-z-]{0,63}|\*)(?:\.v\d{1,3})?)?\Z")


def read_event_type(text: str) -> tuple[str, str]:
    """`node.failed`, `node.failed.v1`, `node.*` or `node` as kind and what. Raises `Refused`."""
    if not (found := _TYPE.match(text)):
        raise bad("bad-type", f"{text!r:.60} is no type of event: expected node.failed, or node.*", field="type")
    return found["kind"], found["what"] or "*"


def read_event_query(*, pool: str = "", node: str = "", type_: str = "", since: str = "", now: datetime) -> EventQuery:
    kind, what = read_event_type(type_) if type_ else ("", "")
    return EventQuery(
        pool=read_id(pool, "pool") if pool else "",
        node=read_id(node, "node") if node else "",
        kind=kind,
        what=what,
        since=read_since(since, now) if since else None,
    )


_ACTION = re.compile(r"\A[a-z0-9][a-z0-9-]{0,63}\Z")


def read_audit_query(
    *, actor: str = "", action: str = "", pool: str = "", node: str = "", since: str = "", now: datetime
) -> AuditQuery:
    """Raises `Refused`."""
    if len(actor) > 128:
        raise bad("bad-parameter", "actor is longer than any actor", field="actor")
    if action and not _ACTION.match(action):
        raise bad("bad-parameter", f"{action!r:.60} is no action: expected a word such as terminate", field="action")
    return AuditQuery(
        actor=actor,
        action=action,
        pool=read_id(pool, "pool") if pool else "",
        node=read_id(node, "node") if node else "",
        since=read_since(since, now) if since else None,
    )


def read_node_query(query: NodeQuery, statuses: tuple[str, ...], healths: tuple[str, ...]) -> NodeQuery:
    """Checks a query's words. Raises `Refused`."""
    if query.pool:
        read_id(query.pool, "pool")
    if query.status:
        _one_of("status", query.status, statuses)
    if query.health:
        _one_of("health", query.health, healths)
    for name in ("provider", "region"):
        if len(getattr(query, name)) > 256:
            raise bad("bad-parameter", f"{name} is longer than any {name}", field=name)
    return query


def read_page(limit: int | None, token: str) -> Page:
    """Raises `Refused` for a limit out of bounds, or a token that no answer gave."""
    if limit is not None and not 1 <= limit <= LIMIT_MAX:
        raise bad("bad-limit", f"limit {limit} is not between 1 and {LIMIT_MAX}", field="limit")
    if token and not is_id(token):
        raise bad("bad-page-token", "page_token is none that an answer gave", field="page_token")
    return Page(limit=limit or 1000, after=token)


def _one_of(name: str, word: str, known: tuple[str, ...]) -> None:
    if word not in known:
        hint = nearest(word, known)
        raise bad("bad-parameter", f"{name} {word!r:.60} is none of {', '.join(known)}{hint}", field=name)


def _field_of(error: msgspec.ValidationError) -> str:
    found = re.search(r"at `\$\.(\w+)", str(error)) or re.search(r"required field `(\w+)`", str(error))
    return found[1] if found else ""


def _plainly(error: msgspec.ValidationError) -> str:
    """msgspec's own words are plain; a pattern in them is not."""
    text = str(error)
    if "matching regex" in text:
        field = _field_of(error)
        return f"{field or 'the value'} has a form that is not allowed"
    return text[:300].replace("`$.", "`").replace("Object missing", "there is no")
