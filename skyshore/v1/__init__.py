"""Generated from protos/skyshore/v1 by `make fmt`. Never edited."""
