"""Replays a schedule of requests against a gateway and audits itself."""
