"""Figures, statistics and tables; simulate, compare and replay share them."""
