"""`skyshore demo`: everything once, with real requests and a report."""
