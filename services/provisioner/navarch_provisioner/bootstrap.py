"""What a new machine is told of itself: identity, tags, its agent's environment, its launch token. Pure.

The token follows from identity and attempt, so that whoever asks again for the same attempt asks for the same machine.
"""

import hashlib
from urllib.parse import urlsplit, urlunsplit

from navarch_common.model.node import LaunchRequest, NodeRecord
from navarch_provisioner.cloud.base import Tags
from navarch_provisioner.placement import Offer
from navarch_provisioner.settings import ProvisionerSettings
from navarch_provisioner.view import PoolView

LABELS_MAX = 64


def launch_token(installation: str, node: str, generation: int, attempt: int) -> str:
    """The idempotency token of one attempt: 32 hexadecimal digits, fit for every cloud's client token."""
    text = f"{installation}/{node}/{generation}/{attempt}"
    return hashlib.sha256(text.encode()).hexdigest()[:32]


def provider_id(cluster: str, node: str) -> str:
    """What Kubernetes will know the machine by: ours, known before any cloud has answered."""
    return f"navarch://{cluster}/{node}"


def agent_env(settings: ProvisionerSettings) -> dict[str, str]:
    """Where a machine's agent finds us, and how often it speaks. Never a secret: user data is readable by everyone on
    the machine. Its node id, pool and generation are added by the provider from the request."""
    env = {
        "NAVARCH_NATS_URL": without_password(settings.nats_url),
        "NAVARCH_AGENT_HEARTBEAT_INTERVAL": f"{settings.heartbeat_interval.total_seconds():g}s",
        "NAVARCH_AGENT_SUBJECT_PREFIX": settings.subject_prefix,
    }
    if settings.otlp_endpoint:
        env["NAVARCH_AGENT_OTLP_ENDPOINT"] = without_password(settings.otlp_endpoint)
    return env


def without_password(urls: str) -> str:
    """A list of server addresses without user names and passwords."""
    return ",".join(_bare(url.strip()) for url in urls.split(",")) if "@" in urls else urls


def _bare(url: str) -> str:
    parts = urlsplit(url)
    return urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2]))


def labels(view: PoolView) -> dict[str, str]:
    """The pool's labels; `pool` is always the pool's name, whatever the file says."""
    own = dict(view.config.labels) if view.config else {}
    return {**own, "pool": view.pool}


def launch_request(view: PoolView, node: str, offer: Offer, *, generation: int = 1, attempt: int = 1) -> LaunchRequest:
    """The call as it will be made, however often. It is frozen in the node's record before the first time."""
    return LaunchRequest(
        node=node,
        pool=view.pool,
        cluster=view.cluster,
        installation=view.installation,
        generation=generation,
        provider=offer.provider,
        instance_type=offer.instance_type,
        region=offer.region,
        zone=offer.zone,
        token=launch_token(view.installation, node, generation, attempt),
        labels=labels(view),
        agent_env=agent_env(view.settings),
    )


def tags_of(record: NodeRecord, cluster: str, installation: str, *, intent: str = "") -> Tags:
    """The tags by which a machine is known to be this node's. `intent` stands in where the launch is not on record."""
    return Tags(
        cluster=cluster,
        installation=installation,
        pool=record.pool,
        node=record.node,
        generation=record.generation,
        intent=record.launch.request.token if record.launch else intent,
    )
