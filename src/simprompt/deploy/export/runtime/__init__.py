"""What an exported folder runs: modules that need onnxruntime, NumPy and Pillow alone."""
