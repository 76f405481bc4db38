"""The project's own policies."""
