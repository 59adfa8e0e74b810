"""The interface that the gateway serves: the .proto, its generated code, and a typed client."""
