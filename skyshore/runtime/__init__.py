"""What all processes share: serving, draining, logs, metrics, error mapping."""
