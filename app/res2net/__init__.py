"""Res2Net image classifiers: models, training, evaluation and use."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from res2net.inference.cam import Explainer
    from res2net.inference.features import FeatureExtractor
    from res2net.inference.predictor import Predictor
    from res2net.zoo import create_model, list_models

__all__ = ["Explainer", "FeatureExtractor", "Predictor", "create_model", "list_models"]

# Imported when first asked for, so that `import res2net` and `res2net --help` do not wait for
# PyTorch.
_HOMES = {
    "Explainer": "res2net.inference.cam",
    "FeatureExtractor": "res2net.inference.features",
    "Predictor": "res2net.inference.predictor",
    "create_model": "res2net.zoo",
    "list_models": "res2net.zoo",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
