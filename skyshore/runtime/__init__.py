"""What every process does alike: serve, drain, log, count, map errors."""
