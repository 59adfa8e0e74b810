"""Writes the generated code in `navarch_api/v1` again: `python -m navarch_api.generate`, after a change of the .proto.

`--check` writes nothing and exits with 1 where the code that is checked in is not what the .proto gives.
"""

import subprocess
import sys
import tempfile
from pathlib import Path

HERE = Path(__file__).parent
PROTO_ROOT = HERE / "proto"
OUT = HERE / "v1"
PROTO = "navarch/v1/fleet.proto"
FILES = ("fleet_pb2.py", "fleet_pb2.pyi", "fleet_pb2_grpc.py", "fleet_pb2_grpc.pyi")


def generate() -> dict[str, str]:
    """The generated files by name, with imports that fit our package. Raises `RuntimeError` with protoc's own words."""
    with tempfile.TemporaryDirectory() as scratch:
        command = [
            sys.executable, "-m", "grpc_tools.protoc", f"--proto_path={PROTO_ROOT}",
            f"--plugin=protoc-gen-mypy_grpc={Path(sys.executable).with_name('protoc-gen-mypy_grpc')}",
            f"--python_out={scratch}", f"--pyi_out={scratch}", f"--grpc_python_out={scratch}",
            f"--mypy_grpc_out={scratch}", PROTO,
        ]  # fmt: skip
        done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
        if done.returncode != 0:
            raise RuntimeError(done.stderr.strip() or "protoc failed")
        made = Path(scratch) / "navarch" / "v1"
        return {name: _ours((made / name).read_text()) for name in FILES}  # fmt: skip


def _ours(text: str) -> str:
    """protoc names modules after the .proto's folders; ours lie in our own package."""
    return (
        text.replace("from navarch.v1 import", "from navarch_api.v1 import")
        .replace("import navarch.v1.fleet_pb2", "import navarch_api.v1.fleet_pb2")
        .replace("navarch.v1.fleet_pb2.", "navarch_api.v1.fleet_pb2.")
    )


def main() -> int:
    made = generate()
    stale = [name for name, text in made.items() if not (OUT / name).is_file() or (OUT / name).read_text() != text]
    if "--check" in sys.argv[1:]:
        for name in stale:
            sys.stderr.write(f"{OUT.name}/{name} is not what {PROTO} gives: run python -m navarch_api.generate\n")
        return 1 if stale else 0
    for name in stale:
        (OUT / name).write_text(made[name])
    return 0


if __name__ == "__main__":
    sys.exit(main())
