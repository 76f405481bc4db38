"""Ways for ranks to exchange buffers: one operation, several transports, and wrappers that count, delay and fail."""
