"""The embedded nats-server: JetStream on, in files, each write on disk before it is acknowledged."""

import asyncio
import json
from pathlib import Path

from navarch_controlplane.embedded.child import ChildSpec

_ANSWER_TIMEOUT_S = 1.0

_CONFIG = """\
# Written at every start.
server_name: "navarch-embedded"
listen: "127.0.0.1:{port}"
max_payload: 1MB
# Short, so that a stopped client is noticed within seconds.
ping_interval: "5s"
ping_max: 2
write_deadline: "5s"
log_file: {log_file}
logfile_size_limit: 16MB
logfile_max_num: 3
jetstream {{
  store_dir: {store_dir}
  # On disk before the acknowledgement: with the default a power cut loses minutes of acknowledged messages.
  sync_interval: always
  # A bound, not a reservation: streams bound themselves.
  max_file_store: 64GB
  max_memory_store: 64MB
}}
"""


def nats_spec(binary: Path, directory: Path, port: int) -> ChildSpec:
    """A nats-server that keeps its files in `directory`, which is made where missing."""
    directory.mkdir(parents=True, exist_ok=True)
    config, log_file = directory / "nats.conf", directory / "nats.log"
    text = _CONFIG.format(port=port, log_file=json.dumps(str(log_file)), store_dir=json.dumps(str(directory)))
    config.write_text(text)
    return ChildSpec(
        name="nats-server", argv=(str(binary), "--config", str(config)), directory=directory, log_file=log_file,
        port=port, answers=nats_answers,
    )  # fmt: skip


async def nats_answers(port: int) -> bool:
    """Whether a NATS server with JetStream greets at this port. It listens only after it has read its streams."""
    try:
        async with asyncio.timeout(_ANSWER_TIMEOUT_S):
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            try:
                greeting = await reader.readline()
            finally:
                writer.close()
    except (OSError, TimeoutError):
        return False
    word, _, info = greeting.partition(b" ")
    try:
        return word == b"INFO" and bool(json.loads(info).get("jetstream"))
    except ValueError:
        return False
