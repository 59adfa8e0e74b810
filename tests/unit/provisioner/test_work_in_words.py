"""What heartbeats say of the work on a node, in words for people."""

import pytest

from navarch_common.model.gpu import GpuSample
from navarch_provisioner.heard import describe


def gpus(*counts: int | None) -> tuple[GpuSample, ...]:
    return tuple(GpuSample(index=index, process_count=count) for index, count in enumerate(counts))


@pytest.mark.parametrize(
    ("samples", "said"),
    [
        ((), ""),
        (gpus(0, 0), ""),
        (gpus(0, 0, 0, 2), "GPU 3 has 2 processes"),
        (gpus(*[1] * 8), "GPUs 0-7 have 1 process each"),
        (gpus(1, 1, 0, 1, 2, 2), "GPUs 0-1 have 1 process each, GPU 3 has 1 process, GPUs 4-5 have 2 processes each"),
        (gpus(*[1, 0] * 9), ", ".join(f"GPU {n} has 1 process" for n in range(0, 16, 2)) + ", and 1 more"),
        (gpus(1, None), "GPU 0 has 1 process, GPU 1 cannot be read"),
    ],
    ids=lambda value: value if isinstance(value, str) else None,
)
def test_processes_are_told_by_gpu_and_neighbours_together(samples: tuple[GpuSample, ...], said: str) -> None:
    assert describe(samples) == said
