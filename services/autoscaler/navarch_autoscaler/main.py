"""`navarch-autoscaler`: one copy of the autoscaler, for replicas."""

import sys

from navarch_autoscaler.service import AutoscalerService
from navarch_autoscaler.settings import AutoscalerSettings
from navarch_common.config import Config
from navarch_common.run import Deps, run_service


def build(deps: Deps, config: Config) -> AutoscalerService:
    return AutoscalerService(deps, AutoscalerSettings.of(config))


def main() -> None:
    """The console script."""
    sys.exit(run_service("autoscaler", build))
