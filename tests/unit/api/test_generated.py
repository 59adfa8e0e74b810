"""The generated code is what the .proto gives, and works with the libraries that are pinned."""

from navarch_api.generate import FILES, OUT, generate
from navarch_api.v1 import fleet_pb2 as pb


def test_the_code_that_is_checked_in_is_what_the_proto_gives() -> None:
    made = generate()
    stale = [name for name in FILES if (OUT / name).read_text() != made[name]]
    assert not stale, f"{', '.join(stale)}: run python -m navarch_api.generate"


def test_a_message_survives_the_wire() -> None:
    node = pb.Node(node="n1", gpus=8, labels={"a": "b"}, cordons=[pb.Cordon(holder="health")])
    assert pb.Node.FromString(node.SerializeToString()) == node
