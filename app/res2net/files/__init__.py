"""Files that are whole or not there: the ground floor, which imports nothing of the package."""
