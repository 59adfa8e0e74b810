"""The judge: reports and heartbeats in, verdicts and `node.failed` out. It alone says that a node failed.

It owns the records `health/<node>` and the marker `verdicts/<pool>`, and keeps the deadlines of heartbeats. It never
acts on a machine: that is the provisioner's. Decisions are pure (`policy`, `episodes`, `verdict`, `life`, `liveness`);
`service` is the shell that loads, asks them, commits and publishes.
"""
