"""Skyshore: a testbed for inference between shore (edge sites) and sky (a cloud)."""

__version__ = "0.1.0"
