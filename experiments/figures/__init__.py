"""From the rows of requests to the figures of a cell, and from cells to a comparison."""
