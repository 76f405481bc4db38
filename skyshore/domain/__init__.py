"""The words of Skyshore as frozen values: tasks, nodes, arms, placements, outcomes. Standard library only."""
