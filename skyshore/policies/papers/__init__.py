"""Ports of published policies. Each file names the paper, what is our choice, and what is left out."""
