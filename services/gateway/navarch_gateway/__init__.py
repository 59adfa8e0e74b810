"""The door: gRPC and HTTP.

In come requests of people and programs; out go views of what is known, and records of what was asked. It decides whether
a wish makes sense (`wishes`), what a freeze says (`guards`), whether a configuration file comes into force (`proposal`), and
how to tell what happened (`explain`). It owns the records `config/…`, `wish/…` and `guard/…`, and acts on no machine.
"""
