"""Measurements, run from a checkout: each module here is a command, and checks what it times before it times it."""
