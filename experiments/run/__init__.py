"""Runs cells, simulated and live, in processes or on Ray; verifies bundles."""
