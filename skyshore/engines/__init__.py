"""Inference engines behind the engine ports."""
