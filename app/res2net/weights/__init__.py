"""Weights as files: what their keys mean, and how they are read without running their code."""
