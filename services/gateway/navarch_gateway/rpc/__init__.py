"""The gRPC door: `navarch.v1.Fleet`, health and reflection, over the same functions as the HTTP door."""
