"""Placement policies, one a file: `protocol` says what a policy is, `registry` lists all by name.

`baselines` are simple rules and deliberately bad ones, `papers` are ports of published policies, `own` are the
project's. `learning` holds what several of them learn with, and `kernel_policy` the base of those whose rule is a
kernel.
"""
