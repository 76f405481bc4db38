"""The edge node process: a worker with ONNX Runtime."""
