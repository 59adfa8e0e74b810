"""What everyone in one simulated world stands on."""

from dataclasses import dataclass

from navarch_common.bus.memory import MemoryServer
from navarch_common.events.subjects import Subjects
from navarch_sim.virtual.air import Air
from navarch_sim.virtual.clock import SimClock
from navarch_sim.virtual.coverage import Coverage
from navarch_sim.virtual.history import History
from navarch_sim.virtual.loop import SimLoop
from navarch_sim.virtual.sky import Sky
from navarch_sim.virtual.storage import SimStoreServer
from navarch_sim.virtual.truth import Truth


@dataclass(frozen=True, slots=True)
class Ground:
    loop: SimLoop
    clock: SimClock
    subjects: Subjects
    air: Air
    stores: SimStoreServer
    buses: MemoryServer
    sky: Sky
    truth: Truth
    coverage: Coverage
    history: History
