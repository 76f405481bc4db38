"""The language-model engine: continuous batching of one ONNX decoder over key-value slots."""
