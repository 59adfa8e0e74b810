"""The bus: a port (`base`) with two adapters, `jetstream` for production and `memory` for tests and the simulator."""
