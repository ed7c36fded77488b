"""Networks in plain PyTorch: nothing here knows of Lightning, files or devices."""
