"""Emulates the links between gateway and nodes: a relay in the path of every byte, no privilege needed."""
