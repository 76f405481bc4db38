"""From a request's features to its TaskProfile. Pure."""
