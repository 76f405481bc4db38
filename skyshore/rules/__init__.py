"""Every formula and rule once: functions on plain numbers and records, run as they stand or compiled."""
