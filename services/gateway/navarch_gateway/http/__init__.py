"""The HTTP door: `/api/v1` in JSON with problem+json errors, and the probes. Starlette's routes, one module an idea."""
