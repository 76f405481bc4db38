"""Latency, memory, energy and quality of a node. Pure; emulated engine and simulator share it."""
