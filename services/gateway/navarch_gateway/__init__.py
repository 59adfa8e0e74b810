"""The door: gRPC and HTTP; commits wishes and configuration; serves metrics."""
