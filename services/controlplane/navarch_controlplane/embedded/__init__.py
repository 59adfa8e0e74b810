"""Servers of our own: a NATS with JetStream and a Redis-compatible server, as children of the one-process control plane.

What comes in: a data directory. What goes out: the addresses of two servers that keep everything they acknowledge, on
ports that stay the same for the life of the directory. Who holds the directory is decided by a lock that the servers
inherit, so that a second start is refused as long as anything of the first still writes there.
"""

from navarch_controlplane.embedded.child import ChildFailed
from navarch_controlplane.embedded.datadir import DataDir, DataDirInUse
from navarch_controlplane.embedded.servers import EmbeddedServers, ServerAddresses

__all__ = ["ChildFailed", "DataDir", "DataDirInUse", "EmbeddedServers", "ServerAddresses"]
