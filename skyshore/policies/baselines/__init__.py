"""Simple rules to compare with, and deliberately bad ones."""
