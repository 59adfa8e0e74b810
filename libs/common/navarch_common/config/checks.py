"""What must be true between the values of a configuration. Pure: findings go to the report.

A finding that only follows from a mistake already noted at the same key is not told again.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final
from urllib.parse import urlsplit

from navarch_common.config.addresses import bind_address, is_loopback, split_address
from navarch_common.config.autoscaling import (
    Autoscaling,
    ReactiveAutoscaling,
    ScheduledAutoscaling,
    nested,
    strategy_name,
)
from navarch_common.config.installed import Installed
from navarch_common.config.later import ask_for_later
from navarch_common.config.notifier import NotifierConfig
from navarch_common.config.pools import PoolConfig
from navarch_common.config.problems import Report, nearest_name
from navarch_common.config.providers import GcpProvider, provider_type
from navarch_common.config.schema import Config, ServerConfig, TlsConfig

SIMULATED: Final = frozenset({"local", "fake", "docker"})
"""Providers that cost nothing and listen to nobody outside."""


def check(config: Config, report: Report, installed: Installed) -> None:
    """Note everything that does not fit together."""
    _check_server(config.server, report, insecure=config.insecure)
    _check_tls("bus.tls", config.bus.tls, report)
    _check_tls("state.tls", config.state.tls, report)
    _check_notifier("server.notifier", config.server.notifier, report, installed)
    if not config.pools and not report.is_bad("pools"):
        report.add("pools", "expected at least one pool")
    for name, pool in config.pools.items():
        _check_pool(f"pools.{name}", pool, config, report, installed)
    _check_bus(config, report)
    ask_for_later(config, report)


def _check_server(server: ServerConfig, report: Report, *, insecure: bool) -> None:
    for key, address in (("address", server.address), ("http_address", server.http_address)):
        path = f"server.{key}"
        if report.is_bad(path):
            continue
        try:
            host, _ = bind_address(address)
        except ValueError as error:
            report.add(path, str(error))
            continue
        if not is_loopback(host) and not insecure:
            message = f"without auth only this machine may connect: expected 127.0.0.1 as host, found {host}"
            report.add(path, f"{message}; --insecure (or insecure: true) opens it to everybody")
    if not report.is_bad("server") and _same_door(server):
        report.add("server.http_address", f"the same as server.address, {server.address}; each needs its own port")
    if server.heartbeat_timeout < server.heartbeat_interval:
        report.add("server.heartbeat_timeout", "shorter than heartbeat_interval: every node would be suspect")
    if server.silence_deadline < server.heartbeat_timeout:
        report.add("server.silence_deadline", "shorter than heartbeat_timeout: a node would fail before it is suspect")


def _same_door(server: ServerConfig) -> bool:
    (host, port), (http_host, http_port) = split_address(server.address), split_address(server.http_address)
    return port == http_port != 0 and host == http_host


def _check_tls(path: str, tls: TlsConfig | None, report: Report) -> None:
    if tls is not None and (tls.cert_file is None) != (tls.key_file is None):
        report.add(path, "cert_file and key_file belong together, found only one of them")


def _check_notifier(path: str, notifier: NotifierConfig | None, report: Report, installed: Installed) -> None:
    if notifier is None or report.is_bad(path):
        return
    if notifier.type not in installed.notifiers:
        report.add(f"{path}.type", _unavailable("notifier type", notifier.type, installed.notifiers))
    if notifier.type == "webhook" and notifier.webhook is None:
        report.add(f"{path}.webhook", "this key is required with type: webhook")


def _check_pool(path: str, pool: PoolConfig, config: Config, report: Report, installed: Installed) -> None:
    if pool.min_nodes > pool.max_nodes:
        report.add(f"{path}.min_nodes", f"expected at most max_nodes ({pool.max_nodes}), found {pool.min_nodes}")
    _check_pool_providers(path, pool, config, report, installed)
    if pool.setup_commands and pool.ssh_private_key_path is None:
        report.add(f"{path}.setup_commands", "they need ssh_private_key_path, here or in defaults")
    if pool.drain.grace and pool.drain.deadline and pool.drain.grace > pool.drain.deadline:
        report.add(f"{path}.drain.grace", "longer than the deadline of the same drain")
    for index, window in enumerate(pool.disruption.windows):
        if window.start % 24 == window.end % 24 and (window.start, window.end) != (0, 24):
            report.add(f"{path}.disruption.windows[{index}]", f"no hour lies from {window.start} to {window.end}")
    _check_notifier(f"{path}.notifier", pool.notifier, report, installed)
    if pool.autoscaling is not None:
        _check_autoscaling(f"{path}.autoscaling", pool.autoscaling, report, installed)


def _check_pool_providers(path: str, pool: PoolConfig, config: Config, report: Report, installed: Installed) -> None:
    if pool.provider is not None and pool.providers:
        report.add(f"{path}.providers", "expected either provider or providers, found both")
        return
    if report.is_bad(f"{path}.provider") or report.is_bad(f"{path}.providers"):
        return
    if not pool.choices:
        known = ", ".join(sorted(config.providers)) or "none"
        message = f"expected a provider, since not exactly one is configured (configured: {known})"
        if not report.is_bad("providers"):
            report.add(f"{path}.provider", message)
        return
    seen: set[str] = set()
    for index, choice in enumerate(pool.choices):
        here = f"{path}.providers[{index}]" if pool.providers else path
        key = f"{here}.name" if pool.providers else f"{here}.provider"
        if choice.name in seen:
            report.add(key, f"the provider {choice.name} is listed twice")
        seen.add(choice.name)
        _check_provider(key, choice.name, config, report, installed)
        if choice.instance_type is None and not report.is_bad(f"{here}.instance_type"):
            report.add(f"{here}.instance_type", "expected an instance_type in the pool, its provider entry or defaults")


def _check_provider(key: str, name: str, config: Config, report: Report, installed: Installed) -> None:
    provider = config.providers.get(name)
    if provider is None:
        if not report.is_bad(f"providers.{name}"):
            known = ", ".join(sorted(config.providers)) or "none"
            nearest = nearest_name(name, config.providers)
            report.add(key, f"unknown provider {name!r}; configured: {known}", nearest=nearest)
        return
    if (kind := provider_type(provider)) not in installed.providers:
        report.add(f"providers.{name}.type", _unavailable("provider type", kind, installed.providers))
    elif isinstance(provider, GcpProvider) and provider.project is None:
        report.add(f"providers.{name}.project", "this key is required with type: gcp")


def _check_autoscaling(path: str, strategy: Autoscaling, report: Report, installed: Installed) -> None:
    name = strategy_name(strategy)
    if name not in installed.autoscalers:
        report.add(f"{path}.type", _unavailable("autoscaling type", name, installed.autoscalers))
    if isinstance(strategy, ReactiveAutoscaling) and strategy.scale_down_at >= strategy.scale_up_at:
        found = f"{strategy.scale_down_at} and {strategy.scale_up_at}"
        report.add(f"{path}.scale_down_at", f"expected less than scale_up_at, found {found}")
    if isinstance(strategy, ScheduledAutoscaling):
        _check_schedule(path, strategy, report)
    for key, child in nested(strategy):
        _check_autoscaling(f"{path}.{key}", child, report, installed)


def _check_schedule(path: str, strategy: ScheduledAutoscaling, report: Report) -> None:
    for index, entry in enumerate(strategy.schedule):
        here = f"{path}.schedule[{index}]"
        if report.is_bad(here):
            continue
        if entry.start >= entry.end:
            hint = f"; a night is two entries, {entry.start} to 24 and 0 to {entry.end}" if entry.end else ""
            report.add(f"{here}.end", f"no hour lies from {entry.start} to {entry.end}{hint}")
        if entry.min_nodes > entry.max_nodes:
            report.add(f"{here}.min_nodes", f"expected at most max_nodes ({entry.max_nodes}), found {entry.min_nodes}")


def _check_bus(config: Config, report: Report) -> None:
    """A real machine's agent speaks over the open network: not in plain text, nor to whoever asks."""
    used = {choice.name for pool in config.pools.values() for choice in pool.choices}
    real = sorted(name for name in used if name in config.providers and _is_real(config, name))
    urls = config.bus.external_url or config.bus.url
    if not real or urls is None or config.insecure or report.is_bad("bus"):
        return
    encrypted = config.bus.tls is not None or all(
        url.strip().startswith(("tls://", "wss://")) for url in urls.split(",")
    )
    secret = config.bus.credentials is not None or all("@" in (urlsplit(url.strip()).netloc) for url in urls.split(","))
    lacking = [word for word, there in (("TLS", encrypted), ("credentials", secret)) if not there]
    if lacking:
        message = f"the provider {real[0]} launches real machines, and the bus lacks {' and '.join(lacking)}"
        report.add("bus", f"{message}; insecure: true allows it")


def _is_real(config: Config, name: str) -> bool:
    return provider_type(config.providers[name]) not in SIMULATED


def _unavailable(what: str, name: str, available: Iterable[str]) -> str:
    return f"{what} {name} is not available in this release; available: {', '.join(sorted(available))}"
