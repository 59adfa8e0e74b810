"""Which services there are, and what each is made with: the composition root of the one-process control plane."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from navarch_autoscaler.service import AutoscalerService
from navarch_autoscaler.settings import AutoscalerSettings
from navarch_common.run import Deps, RunningService, Surroundings
from navarch_gateway.service import GatewayService
from navarch_gateway.settings import GatewaySettings, Proposal
from navarch_health.service import HealthService
from navarch_health.settings import HealthSettings
from navarch_provisioner.cloud.base import ProviderContext
from navarch_provisioner.cloud.registry import Providers
from navarch_provisioner.service import ProvisionerService
from navarch_provisioner.settings import ProvisionerSettings


@dataclass(frozen=True, slots=True)
class Composition:
    """The services of this process, and what they share with it."""

    providers: Providers
    provisioner_deps: Deps
    health: HealthService
    provisioner: ProvisionerService
    autoscaler: AutoscalerService
    gateway: GatewayService

    @property
    def services(self) -> Mapping[str, RunningService]:
        return {
            "health": self.health,
            "provisioner": self.provisioner,
            "autoscaler": self.autoscaler,
            "gateway": self.gateway,
        }


def compose(deps: Deps, around: Surroundings, config_file: Path, data_dir: Path) -> Composition:
    """Builds every service on the same connections. The doors are `around.own`'s, all else is the configuration in force."""
    config = deps.config.current.config
    health = HealthService(deps.named("health"), HealthSettings.of(config))
    providers = Providers(ProviderContext(data_dir=data_dir, clock=deps.clock, rng=deps.rng))
    provisioner_deps = deps.named("provisioner")
    provisioner = ProvisionerService(
        provisioner_deps, ProvisionerSettings.of(config, nats_url=around.nats_url), providers=providers
    )
    autoscaler = AutoscalerService(deps.named("autoscaler"), AutoscalerSettings.of(config))
    beside: dict[str, RunningService] = {"health": health, "provisioner": provisioner, "autoscaler": autoscaler}
    gateway = GatewayService(
        deps.named("gateway"),
        GatewaySettings.of(around.own.config, proposal=Proposal(config_file, around.env, around.insecure)),
        services=lambda: {name: service.status() for name, service in beside.items()},
    )
    return Composition(
        providers=providers,
        provisioner_deps=provisioner_deps,
        health=health,
        provisioner=provisioner,
        autoscaler=autoscaler,
        gateway=gateway,
    )
