"""A learned prompt as files for programs that have no simprompt: a linear head, ONNX graphs."""
