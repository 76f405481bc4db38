"""Clips that are drawn from a seed, with exact ground truth."""
