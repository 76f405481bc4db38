"""The scheduler process: decides where each task runs."""
