"""The port to a workload scheduler: it is told what to avoid, and asked whether its work has left."""
