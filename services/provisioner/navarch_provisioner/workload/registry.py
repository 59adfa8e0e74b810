"""Which notifier a pool has: `noop`, or what another distribution brings through `navarch.notifiers`."""

from importlib.metadata import entry_points

from navarch_common.config.notifier import NotifierConfig
from navarch_common.errors import NavarchError
from navarch_provisioner.workload.base import WorkloadNotifier
from navarch_provisioner.workload.noop import NoopNotifier

GROUP = "navarch.notifiers"


class UnknownNotifier(NavarchError):
    """No installed distribution brings a notifier of this type."""


def open_notifier(config: NotifierConfig) -> WorkloadNotifier:
    """Raises `UnknownNotifier`. An entry point is a callable from its `NotifierConfig` to the notifier."""
    if config.type == "noop":
        return NoopNotifier()
    for point in entry_points(group=GROUP, name=config.type):
        made: WorkloadNotifier = point.load()(config)
        return made
    raise UnknownNotifier(f"no notifier of type {config.type!r} is installed (entry-point group {GROUP})")
