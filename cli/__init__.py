"""The skyshore command."""
