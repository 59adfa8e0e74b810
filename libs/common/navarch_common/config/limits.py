"""`limits:` of the fleet, of a provider and of a pool. None of them holds unless it is set."""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta

from navarch_common.config.section import Count, Section

Dollars = Annotated[float, Meta(ge=0, le=10_000_000)]


class LimitsConfig(Section, frozen=True, kw_only=True):
    """What may be had and done at most."""

    nodes: Count | None = None
    """Machines that exist at once, whatever their state."""
    dollars_per_hour: Dollars | None = None
    """What all of them may cost together, in US dollars an hour."""
    launches_per_hour: Count | None = None
    """Launches in any hour."""
    replacements_per_hour: Count | None = None
    """Replacements in any hour."""
