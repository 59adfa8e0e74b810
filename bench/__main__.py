"""`python -m bench [NAME…] [--json FILE]`."""

import argparse
import asyncio
import sys
from importlib import import_module
from pathlib import Path

from bench.report import Figure, save, show

NAMES = ("chain", "heartbeats", "fleet", "agent", "start", "sim", "lines", "policy")


def main() -> int:
    parser = argparse.ArgumentParser(prog="bench", description="Figures beside ceilings measured in the same run.")
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"which: {', '.join(NAMES)} (all)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures there too")
    given = parser.parse_args()
    unknown = sorted(set(given.names) - set(NAMES))
    if unknown:
        parser.error(f"unknown: {', '.join(unknown)}; there are {', '.join(NAMES)}")
    figures: list[Figure] = []
    for name in given.names or NAMES:
        print(f"{name}: {(import_module(f'bench.{name}').__doc__ or '').splitlines()[0]}", file=sys.stderr, flush=True)
        figures += asyncio.run(import_module(f"bench.{name}").run())
    show(figures)
    if given.json:
        save(figures, given.json)
    return 0


if __name__ == "__main__":
    sys.exit(main())
