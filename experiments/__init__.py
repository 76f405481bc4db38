"""Experiments: cells over policies, seeds and loads; run bundles, comparisons and their reports."""
