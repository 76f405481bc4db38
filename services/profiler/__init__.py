"""The profiler process: features of a task before it is placed."""
