"""The entries of `providers:`, told apart by `type`.

Every type that Navarch knows by name is here, so that a file is checked as a whole; which of them this installation
has an adapter for is another question (`installed.py`), asked only of providers that a pool uses.
"""

from __future__ import annotations

from datetime import timedelta
from typing import Annotated

from msgspec import Meta

from navarch_common.config.limits import LimitsConfig
from navarch_common.config.section import Count, Path, Patience, Ratio, Section, Settings, Text, Url

GpuCount = Annotated[int, Meta(ge=1, le=64)]


class LocalProvider(Section, frozen=True, kw_only=True, tag_field="type", tag="local"):
    """Machines that are processes on this one, with simulated GPUs."""

    gpu_count: GpuCount = 8
    """GPUs of each machine."""
    limits: LimitsConfig = LimitsConfig()
    """What may be bought here."""


class FakeProvider(Section, frozen=True, kw_only=True, tag_field="type", tag="fake"):
    """A cloud of its own: a server process that holds simulated machines."""

    url: Url | None = None
    """Where it listens. None starts one as a child process."""
    gpu_count: GpuCount = 8
    """GPUs of each machine."""
    boot_time: Patience = timedelta(seconds=2)
    """From launch to the agent's first word. Two seconds: long enough to be seen, short enough to wait for."""
    capacity: Count | None = None
    """Machines that it has in all. None means no bound."""
    failure_rate: Ratio = 0.0
    """Part of the calls that fail."""
    lost_reply_rate: Ratio = 0.0
    """Part of the calls that take effect, but whose reply is lost."""
    limits: LimitsConfig = LimitsConfig()
    """What may be bought here."""


class AwsProvider(Section, frozen=True, kw_only=True, tag_field="type", tag="aws"):
    """Amazon EC2. Credentials come by its own standard way."""

    region: Text | None = None
    """Where to launch, unless a pool says otherwise."""
    zones: tuple[Text, ...] = ()
    """Availability zones, in order of preference. None means any."""
    image: Text | None = None
    """Machine image. None takes the cloud's own image for GPUs."""
    subnet_ids: tuple[Text, ...] = ()
    """Subnets to launch in."""
    security_group_ids: tuple[Text, ...] = ()
    """Security groups of each machine."""
    key_name: Text | None = None
    """Key pair for SSH."""
    instance_profile: Text | None = None
    """Instance profile of each machine."""
    endpoint_url: Url | None = None
    """Another address for the API."""
    limits: LimitsConfig = LimitsConfig()
    """What may be bought here."""


class GcpProvider(Section, frozen=True, kw_only=True, tag_field="type", tag="gcp"):
    """Google Compute Engine."""

    project: Text | None = None
    """Project that pays. It is required where a pool uses the provider."""
    region: Text | None = None
    """Where to launch, unless a pool says otherwise."""
    zone: Text | None = None
    """The one zone to launch in; the same as `zones` with one entry."""
    zones: tuple[Text, ...] = ()
    """Zones, in order of preference."""
    image: Text | None = None
    """Image or image family. None takes the cloud's own image for GPUs."""
    network: Text | None = None
    """Network of each machine. None is the project's default."""
    service_account: Text | None = None
    """Service account of each machine."""
    credentials_file: Path | None = None
    """Credentials. None finds them by the cloud's own standard way."""
    api_endpoint: Url | None = None
    """Another address for the API."""
    limits: LimitsConfig = LimitsConfig()
    """What may be bought here."""


class LambdaProvider(Section, frozen=True, kw_only=True, tag_field="type", tag="lambda"):
    """Lambda's on-demand cloud."""

    api_key_env: Annotated[str, Meta(pattern=r"^[A-Za-z_][A-Za-z0-9_]*\Z", max_length=256)] = "LAMBDA_API_KEY"
    """Name of the environment variable that holds the key, so that the key never stands in a file."""
    region: Text | None = None
    """Where to launch, unless a pool says otherwise."""
    base_url: Url | None = None
    """Another address for the API."""
    limits: LimitsConfig = LimitsConfig()
    """What may be bought here."""


class DockerProvider(Section, frozen=True, kw_only=True, tag_field="type", tag="docker"):
    """Machines that are containers on this one."""

    image: Text | None = None
    """Image that holds the agent."""
    limits: LimitsConfig = LimitsConfig()
    """What may be bought here."""


class ExternalProvider(Section, frozen=True, kw_only=True, tag_field="type", tag="external"):
    """A provider that another distribution brings through the entry-point group `navarch.providers`."""

    adapter: Text
    """The entry point's name: what stands under `type` in the file."""
    settings: Settings = {}
    """All its other keys, unchecked: plain text, numbers, booleans, lists and mappings."""
    limits: LimitsConfig = LimitsConfig()
    """What may be bought here."""


ProviderConfig = (
    LocalProvider | FakeProvider | AwsProvider | GcpProvider | LambdaProvider | DockerProvider | ExternalProvider
)


def provider_type(provider: ProviderConfig) -> str:
    """What the file calls the kind of provider: the name of its adapter."""
    if isinstance(provider, ExternalProvider):
        return provider.adapter
    return str(provider.__struct_config__.tag)
