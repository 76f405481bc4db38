"""Turns outcomes into OpenTelemetry spans. It runs beside the system; no request waits for it."""
