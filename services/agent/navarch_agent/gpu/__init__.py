"""The GPU driver as a port: who the GPUs are, and what they read right now."""

from navarch_agent.gpu.base import DriverState, GpuDriver, Inventory, Sample

__all__ = ["DriverState", "GpuDriver", "Inventory", "Sample"]
