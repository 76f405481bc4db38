"""The mux: many calls on one gRPC stream. A client, a server, and the send queue of both ends."""
