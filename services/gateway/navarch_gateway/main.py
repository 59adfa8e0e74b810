"""`navarch-gateway`: one gateway as a process of its own."""

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from navarch_common.config import Config
from navarch_common.run import Deps, run_service
from navarch_gateway.service import GatewayService
from navarch_gateway.settings import GatewaySettings, Proposal


def main(argv: Sequence[str] | None = None) -> int:
    """Returns the exit status. The file of `--config` is what this gateway proposes, and where its addresses stand."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    parser.add_argument("--config", "-c", type=Path)
    parser.add_argument("--insecure", action="store_true")
    own, _ = parser.parse_known_args(arguments)

    def build(deps: Deps, config: Config) -> GatewayService:
        assert own.config is not None, "run_service has required it"
        proposal = Proposal(own.config, os.environ, own.insecure)
        return GatewayService(deps, GatewaySettings.of(config, proposal=proposal))

    return run_service("gateway", build, arguments)


if __name__ == "__main__":
    sys.exit(main())
