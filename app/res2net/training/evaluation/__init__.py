"""Evaluation: from what a user names to figures, by class and with BN statistics made anew."""
