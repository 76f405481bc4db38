"""Parts that several policies share: statistics, regressions, features of arms, numbers of arms, snapshots."""
