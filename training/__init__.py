"""Makes the small learned parts that ship with their weights: what trained them, on what, and how good they are."""
