"""The gateway process: REST in, placed work out."""
