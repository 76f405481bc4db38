"""The profiler process: finds out what a task is before it is placed."""
