"""PyTorch checkpoint files in and out, without PyTorch."""
