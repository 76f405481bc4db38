"""Scheduling policies: one protocol, one registry, one file each. Pure."""
