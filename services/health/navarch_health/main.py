"""`navarch-health`: one copy of health as a process of its own."""

import sys
from collections.abc import Sequence

from navarch_common.config import Config
from navarch_common.run import Deps, run_service
from navarch_health.service import HealthService
from navarch_health.settings import HealthSettings


def build(deps: Deps, config: Config) -> HealthService:
    """The service on its connections."""
    return HealthService(deps, HealthSettings.of(config))


def main(argv: Sequence[str] | None = None) -> int:
    """Runs until a signal ends it; returns the exit status."""
    return run_service("health", build, argv)


if __name__ == "__main__":
    sys.exit(main())
