"""`skyshore decisions`: shows and exports the decision log."""
