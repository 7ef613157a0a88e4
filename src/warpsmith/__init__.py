"""Warpsmith: PyTorch modules in, verified CUDA kernels out."""
