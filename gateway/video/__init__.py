"""Video requests: uploads, jobs, segments, and placing and running them."""
