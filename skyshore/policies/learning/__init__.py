"""What several policies learn with: statistics, regressions, features of arms, numbers of arms, snapshots."""
