"""`notifier:` of the server and of a pool: who tells the workload scheduler."""

from __future__ import annotations

from datetime import timedelta
from typing import Annotated, Literal

from msgspec import Meta

from navarch_common.config.section import Patience, Section, Url


class WebhookConfig(Section, frozen=True, kw_only=True):
    """Addresses that are told. One that is not set is skipped."""

    cordon_url: Url | None = None
    """Told that a node takes no new work."""
    uncordon_url: Url | None = None
    """Told that it takes work again."""
    drain_url: Url | None = None
    """Told that its work must go."""
    drain_status_url: Url | None = None
    """Asked whether the work is gone."""
    timeout: Patience = timedelta(seconds=30)
    """For one call."""
    headers: dict[
        Annotated[str, Meta(pattern=r"^[A-Za-z0-9!#$%&'*+.^_`|~-]+\Z", max_length=128)],
        Annotated[str, Meta(max_length=4096, pattern=r"^[^\x00-\x08\x0a-\x1f\x7f]*\Z", extra={"secret": True})],
    ] = {}
    """Sent with each call; never shown, since one of them is usually a token."""


class NotifierConfig(Section, frozen=True, kw_only=True):
    """Which adapter speaks to the scheduler."""

    type: Literal["noop", "webhook"] = "noop"
    """`noop` tells nobody."""
    webhook: WebhookConfig | None = None
    """Needed with `type: webhook`."""
