"""Benchmarks: each figure beside a ceiling that was measured in the same run, on the same servers and settings.

`make bench` runs all, `python -m bench chain agent` some. Each prints a table, and JSON where `--json FILE` asks for it.
A figure on its own says as much about the machine as about Navarch; the ratio says how far Navarch is from what the
same machine could do.
"""
