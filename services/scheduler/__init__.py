"""The scheduler process: it takes RPCs, heartbeats and outcomes, and answers placements that SchedulerCore chooses."""
