"""Emulates the links between gateway and nodes with relays in user space. Needs no privilege."""
