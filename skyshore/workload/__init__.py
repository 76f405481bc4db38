"""Traces, arrival processes and the schedule file that replay and simulation share. Pure."""
