"""Code generated from `proto/navarch/v1/fleet.proto`. Written by `python -m navarch_api.generate`, never by hand."""
