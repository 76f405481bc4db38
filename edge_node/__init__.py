"""An edge node: the worker over ONNX Runtime."""
