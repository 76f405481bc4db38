"""The scheduler process: RPCs, heartbeats and outcomes in, placements out; every choice is SchedulerCore's."""
