"""Trains the small models that ship with the repository, and writes their model cards."""
