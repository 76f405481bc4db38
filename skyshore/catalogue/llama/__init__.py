"""From GGUF weights of a Llama-shaped model to an ONNX graph and a tokenizer file."""
