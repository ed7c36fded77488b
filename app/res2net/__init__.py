"""Res2Net image classifiers: models, training, evaluation and use."""
