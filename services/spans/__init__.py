"""Turns outcomes into OpenTelemetry spans, beside the system: nothing on a request's path knows of it."""
