"""`navarch-provisioner`: one copy of the provisioner against an existing NATS and Redis."""

import argparse
import os
from pathlib import Path

from navarch_common.config import Config
from navarch_common.run import NATS_VARIABLE, Deps, run_service
from navarch_provisioner.service import ProvisionerService
from navarch_provisioner.settings import ProvisionerSettings


def main() -> int:
    # run_service reads the whole command line; machines of a local provider live in the same directory.
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    parser.add_argument("--data-dir", type=Path, default=Path("navarch-data"))
    data_dir: Path = parser.parse_known_args()[0].data_dir

    def build(deps: Deps, config: Config) -> ProvisionerService:
        settings = ProvisionerSettings.of(config, nats_url=os.environ.get(NATS_VARIABLE, ""))
        return ProvisionerService(deps, settings, data_dir=data_dir)

    return run_service("provisioner", build)


if __name__ == "__main__":
    raise SystemExit(main())
