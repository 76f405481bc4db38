"""Video classification: a space–time transformer, its training on synthetic clips, and its stages for ONNX Runtime."""
