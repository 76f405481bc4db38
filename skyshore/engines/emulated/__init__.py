"""Engines that answer with invented words and boxes at the pace of a node profile. Reports show them as emulated."""
