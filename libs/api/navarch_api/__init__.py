"""The interface that the gateway serves: the .proto, its generated code, and a typed client.

`client` speaks the HTTP API, `types` are its answers, `errors` what can go wrong; `proto/navarch/v1/fleet.proto` is the
gRPC service `navarch.v1.Fleet`, its generated code lies in `navarch_api.v1`. It knows nothing of the rest of Navarch, so
that an operator's laptop can have it alone.

After a change of the .proto, `python -m navarch_api.generate` writes the generated code again; it needs grpcio-tools and
mypy-protobuf, which only those who change the interface have.
"""
