"""Ways for ranks to exchange buffers: one verb, several carriers, and wrappers that count, shape and break."""
