"""Video engines: decode, pre-process, infer in batches, post-process, each stage beside the others."""
