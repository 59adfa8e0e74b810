"""Every service but the agent in one process, by default with its own NATS and Redis-compatible server."""
