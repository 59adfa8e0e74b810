"""What a person reads when the control plane is ready: what runs, where, and what to try next. Pure."""

from navarch_common.config import Config
from navarch_controlplane.embedded.datadir import Runtime

HTTP_DEFAULT = "http://127.0.0.1:8080"
_LOCALS = ("http://localhost:8080", HTTP_DEFAULT)


def first_words(
    config: Config, runtime: Runtime, *, data_dir: str, config_file: str, log_file: str, navarch: str, version: str
) -> str:
    """A few lines. `navarch` is how the command is called from here."""
    client = navarch if runtime.http in _LOCALS else f"{navarch} -s {runtime.http}"
    pool = next(iter(config.pools), "POOL")
    lines = [
        f"Navarch {version} runs here. Ctrl-C stops it; {data_dir} keeps its state for the next start.",
        "",
        f"  HTTP     {runtime.http}",
        f"  gRPC     {runtime.grpc}",
        f"  NATS     {runtime.nats}",
        *(f"  pool     {line}" for line in _pools(config)),
        f"  config   {config_file} (changes are taken over when you save it)",
        *([f"  log      {log_file}"] if log_file else []),
        "",
        "Try in another terminal:",
        f"  {client} list -w",
        f"  {client} pool status {pool}",
    ]
    if _simulated(config):
        lines += [
            f"  {client} inject NODE xid 79 --gpu 3     # a GPU falls off the bus: watch the node being replaced",
            f"  {client} explain NODE                   # why it is as it is",
        ]
    return "\n".join([*lines, f"  {client} events --follow"])


def _pools(config: Config) -> list[str]:
    lines = []
    for name, pool in config.pools.items():
        providers = ", ".join(choice.name for choice in pool.choices)
        sized = f"autoscaled, {pool.min_nodes} to {pool.max_nodes}" if pool.autoscaling else f"{pool.min_nodes}"
        lines.append(f"{name}: {sized} nodes on {providers}")
    return lines


def _simulated(config: Config) -> bool:
    used = {choice.name for pool in config.pools.values() for choice in pool.choices}
    return any(type(config.providers[name]).__struct_config__.tag in {"local", "fake"} for name in used)
