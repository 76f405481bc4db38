"""The domain values of Skyshore, all frozen: tasks, nodes, arms, placements, outcomes. Standard library only."""
