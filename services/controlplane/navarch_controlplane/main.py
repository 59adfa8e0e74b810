"""`control-plane` and `navarch up`: takes the data directory, reads the configuration, and runs everything until told to stop."""

import argparse
import io
import logging
import os
import shutil
import sys
from collections.abc import Sequence
from contextlib import ExitStack
from datetime import datetime
from importlib.metadata import version
from importlib.resources import files
from logging.handlers import RotatingFileHandler
from pathlib import Path

from navarch_common import log as logs
from navarch_common.config.load import Loaded, load_file
from navarch_common.config.problems import ConfigError
from navarch_common.errors import NavarchError
from navarch_common.process import EXIT_DONE, EXIT_FAILED, EXIT_USAGE
from navarch_common.process import main as run_until_stopped
from navarch_controlplane.embedded.datadir import DataDir, Runtime
from navarch_controlplane.first_words import first_words
from navarch_controlplane.service import ControlPlane
from navarch_controlplane.settings import (
    DATA_DIR_DEFAULT,
    BadAddress,
    ControlPlaneSettings,
    Options,
    check_doors,
    with_doors,
)

CONFIG_NAME = "navarch.yaml"
LOG_NAME = "control-plane.log"
_LOG_BYTES, _LOGS_KEPT = 16 * 1024 * 1024, 3


def main(argv: Sequence[str] | None = None) -> int:
    """`control-plane`: logs to stderr, as a service manager wants it."""
    parser = argparse.ArgumentParser(prog="control-plane", allow_abbrev=False, description="Navarch in one process.")
    parser.add_argument("--config", "-c", type=Path, metavar="FILE", help="the configuration (DATA_DIR/navarch.yaml)")
    parser.add_argument(
        "--data-dir", type=Path, default=DATA_DIR_DEFAULT, metavar="DIR", help="all state (%(default)s)"
    )
    parser.add_argument("--http", default="", metavar="HOST:PORT", help="where HTTP is served")
    parser.add_argument("--grpc", default="", metavar="HOST:PORT", help="where gRPC is served")
    parser.add_argument("--insecure", action="store_true", help="as `insecure: true` in the configuration")
    parser.add_argument("--log-level", choices=logs.LEVELS, default="info")
    parser.add_argument("--version", action="version", version=f"control-plane {version('navarch-controlplane')}")
    given = parser.parse_args(argv)
    logs.configure(given.log_level, service="control-plane")
    options = Options(
        config=given.config, data_dir=given.data_dir, http=given.http, grpc=given.grpc, insecure=given.insecure,
        command="control-plane",
    )  # fmt: skip
    return run(options, log_file=False)


def run(options: Options, *, log_file: bool = True) -> int:
    """Runs until SIGINT or SIGTERM and returns the exit status. With `log_file`, logs go to the data directory."""
    data_dir = DataDir(options.data_dir)
    try:
        own, config_file = _configuration(options, data_dir)
        settings = ControlPlaneSettings.of(own.config, os.environ)
        with ExitStack() as held:
            held.enter_context(data_dir.lock(options.command, datetime.now().astimezone().isoformat(" ", "seconds")))
            if log_file:
                _log_to(data_dir.path / LOG_NAME)
            check_doors(settings)
            _offer(config_file)

            def announce(runtime: Runtime) -> None:
                print(_words(own, runtime, options, config_file, log_file=log_file), flush=True)

            plane = ControlPlane(own, config_file, settings, data_dir, os.environ, announce, insecure=options.insecure)
            status = run_until_stopped(plane.run())
        if status == EXIT_DONE and log_file:
            print("stopped")
        return status
    except (ConfigError, BadAddress) as error:
        print(error, file=sys.stderr)
        return EXIT_USAGE
    except NavarchError as error:
        print(f"{options.command}: {error}", file=sys.stderr)
        return EXIT_FAILED


def _configuration(options: Options, data_dir: DataDir) -> tuple[Loaded, Path]:
    """The configuration to start with, and the file that proposes it. Raises `ConfigError`, `BadAddress`."""
    file = options.config or data_dir.path / CONFIG_NAME
    if options.config is None and not file.exists():
        source = Path(str(files("navarch_controlplane") / "default.yaml"))
        loaded = load_file(source, os.environ, insecure=options.insecure)
    else:
        loaded = load_file(file, os.environ, insecure=options.insecure)
    config = with_doors(loaded.config, options)
    return Loaded(config, loaded.text, loaded.sha256), file


def _offer(file: Path) -> None:
    """Puts the default configuration where the user can edit it, unless there is one. The data directory is ours by now."""
    if not file.exists():
        shutil.copyfile(str(files("navarch_controlplane") / "default.yaml"), file)


def _log_to(file: Path) -> None:
    """Logs go to a file that is kept small; only what is an error is also told on the terminal."""
    logs.configure("info", service="control-plane")
    root = logging.getLogger()
    terminal = root.handlers[0]
    terminal.setLevel(logging.ERROR)
    logs.configure("info", service="control-plane", stream=io.StringIO())  # No terminal: its formatter writes JSON.
    into_file = RotatingFileHandler(file, maxBytes=_LOG_BYTES, backupCount=_LOGS_KEPT, encoding="utf-8")
    into_file.setFormatter(root.handlers[0].formatter)
    root.handlers[:] = [into_file, terminal]


def _words(own: Loaded, runtime: Runtime, options: Options, config_file: Path, *, log_file: bool) -> str:
    return first_words(
        own.config,
        runtime,
        data_dir=_short(options.data_dir),
        config_file=_short(config_file),
        log_file=_short(options.data_dir / LOG_NAME) if log_file else "",
        navarch=_how_to_call("navarch"),
        version=version("navarch-controlplane"),
    )


def _short(path: Path) -> str:
    """Relative to where the user is, when that is below."""
    try:
        return str(path.resolve().relative_to(Path.cwd()))
    except ValueError:
        return str(path)


def _how_to_call(program: str) -> str:
    """As it can be typed here: by its name where PATH finds it, by its path where not."""
    ours = Path(sys.executable).parent / program
    found = shutil.which(program)
    return program if found is not None and Path(found).resolve() == ours.resolve() else _short_link(ours)


def _short_link(path: Path) -> str:
    try:
        return str(path.relative_to(Path.cwd()))
    except ValueError:
        return str(path)


if __name__ == "__main__":
    sys.exit(main())
