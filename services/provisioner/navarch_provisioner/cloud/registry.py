"""The clouds of the configuration in force, opened: built-in adapters, and what other distributions bring.

An adapter offers `make(name, config, context)`; another distribution's is found by the entry-point group
`navarch.providers`, whose name is the provider's `type` in the file. A provider that leaves the configuration stays open
while this process lives: its machines are still to be looked after.
"""

import importlib
from collections.abc import Callable, Mapping
from importlib.metadata import entry_points

import structlog

from navarch_common.config import ProviderConfig
from navarch_common.config.providers import provider_type
from navarch_common.errors import NavarchError
from navarch_provisioner.cloud.base import CloudProvider, HostedHere, ProviderContext

log = structlog.get_logger(__name__)

GROUP = "navarch.providers"
BUILT_IN = {"local": "navarch_provisioner.cloud.local", "fake": "navarch_provisioner.cloud.fake"}

Make = Callable[[str, ProviderConfig, ProviderContext], CloudProvider]


class UnknownProvider(NavarchError):
    """No installed distribution brings an adapter of this type."""


def adapter(kind: str) -> Make:
    """What makes providers of a type. Raises `UnknownProvider`."""
    if kind in BUILT_IN:
        make: Make = importlib.import_module(BUILT_IN[kind]).make
        return make
    for point in entry_points(group=GROUP, name=kind):
        found: Make = point.load()
        return found
    raise UnknownProvider(f"no provider of type {kind!r} is installed (entry-point group {GROUP})")


class Providers:
    """Open providers by name."""

    def __init__(self, context: ProviderContext | None, given: Mapping[str, CloudProvider] | None = None) -> None:
        """`given` are already open, whatever the configuration says of them: tests and simulations bring their own.
        `context` is what the others are made with."""
        self._context = context
        self._open: dict[str, CloudProvider] = dict(given or {})
        self._given = frozenset(self._open)
        self._configs: dict[str, ProviderConfig] = {}
        self._replaced: list[CloudProvider] = []

    @property
    def names(self) -> frozenset[str]:
        return frozenset(self._open)

    def get(self, name: str) -> CloudProvider | None:
        return self._open.get(name)

    def items(self) -> list[tuple[str, CloudProvider]]:
        return sorted(self._open.items())

    def configure(self, configs: Mapping[str, ProviderConfig]) -> None:
        """Opens what is new or changed. One that cannot be opened is logged and left as it was; others go on."""
        for name, config in configs.items():
            if name in self._given or self._configs.get(name) == config or self._context is None:
                continue
            try:
                made = adapter(provider_type(config))(name, config, self._context)
            except (NavarchError, ImportError, OSError) as error:
                log.error("provider cannot be opened", provider=name, error=str(error))
                continue
            if name in self._open:
                # Calls may be under way on it; it is closed with the process.
                self._replaced.append(self._open[name])
            self._open[name], self._configs[name] = made, config

    @property
    def hosted_here(self) -> dict[str, list[HostedHere]]:
        """By name, those whose machines run on this computer; with what they were replaced by, newest first."""
        found: dict[str, list[HostedHere]] = {}
        for provider in (*self._open.values(), *reversed(self._replaced)):
            if isinstance(provider, HostedHere) and provider.hosted_here:
                found.setdefault(provider.name, []).append(provider)
        return found

    async def close(self) -> None:
        """Closes what this registry has opened."""
        opened = [provider for name, provider in self._open.items() if name not in self._given]
        for provider in (*opened, *self._replaced):
            await provider.close()
        self._open, self._replaced = {}, []
