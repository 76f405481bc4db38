"""Starts all processes of a system on one machine, watches them and stops them in order."""
