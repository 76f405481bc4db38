"""Every formula and rule, once: functions on numbers and records, run as plain Python or compiled."""
