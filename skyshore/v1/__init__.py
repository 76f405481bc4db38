"""Generated from protos/skyshore/v1 by `make gen`. Never edited."""
