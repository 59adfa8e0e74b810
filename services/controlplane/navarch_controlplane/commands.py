"""`navarch up`, found by the command through its entry point."""

from pathlib import Path
from typing import Annotated

import typer

from navarch_controlplane.settings import DATA_DIR_DEFAULT, Options


def up(
    config: Annotated[
        Path | None, typer.Option("-c", "--config", help="Configuration file; without it DATA_DIR/navarch.yaml.")
    ] = None,
    data_dir: Annotated[Path, typer.Option("--data-dir", help="Where all state is kept.")] = DATA_DIR_DEFAULT,
    http: Annotated[str, typer.Option("--http", metavar="HOST:PORT", help="Where HTTP is served.")] = "",
    grpc: Annotated[str, typer.Option("--grpc", metavar="HOST:PORT", help="Where gRPC is served.")] = "",
    insecure: Annotated[
        bool, typer.Option("--insecure", help="Let other addresses than 127.0.0.1 be served without auth.")
    ] = False,
) -> None:
    """Run a whole fleet here: the control plane with its own NATS and Redis, and by default three simulated machines."""
    from navarch_controlplane.main import run

    options = Options(config=config, data_dir=data_dir, http=http, grpc=grpc, insecure=insecure, command="navarch up")
    raise typer.Exit(run(options))
