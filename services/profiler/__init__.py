"""The profiler process: computes the features of a task before it is placed."""
