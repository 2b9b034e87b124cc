"""A bundle compared with PyTorch, optimum-intel and ONNX Runtime: the systems, and how they are measured."""
