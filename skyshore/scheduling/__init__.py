"""The scheduling core: events in, actions out. Pure."""
