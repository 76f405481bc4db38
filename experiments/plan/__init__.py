"""What is run: cells, their requests, the grid of an experiment, the bundle that holds it."""
