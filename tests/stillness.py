"""Standing still as libraries do: without Python's lock, and deaf to its handlers of signals."""

import ctypes
from typing import NoReturn


def stand_still() -> NoReturn:
    """For ever, in C."""
    lock, library = ctypes.create_string_buffer(64), ctypes.CDLL(None)
    while True:
        library.pthread_mutex_lock(lock)
