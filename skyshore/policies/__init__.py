"""Placement policies: `protocol` is the seam, `registry` the list, every other file one policy."""
