"""Pictures, each from plain values: Matplotlib without pyplot, which has global state."""
