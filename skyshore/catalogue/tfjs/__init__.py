"""From a TensorFlow.js graph model to an ONNX graph."""
