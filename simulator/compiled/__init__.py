"""Whole runs on arrays, compiled: the same answers as the plain simulator, bit for bit, many times as fast.

The plain simulator is the specification. Formulas are its own functions, compiled; what is written twice is only the
bookkeeping around them, and `tests/unit/test_simulator_compiled.py` holds both to the same figures.
"""
