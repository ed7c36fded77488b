"""Trained weights that come with the package: small ones, by name, that need no network."""

from __future__ import annotations

from dataclasses import dataclass
from importlib import resources
from pathlib import Path

from res2net.errors import InputError
from res2net.models.variants import nearest_variants

SAMPLE = Path(str(resources.files("res2net.weights"))) / "shipped" / "digit.png"
"""An image to try them on: a 3 of 8 x 8 pixels, drawn for this project."""


@dataclass(frozen=True, kw_only=True)
class ShippedWeights:
    """One file of weights in this package; beside it lies its card, `<name>.md`."""

    name: str
    variant: str
    licence: str
    data: str
    """What they were trained and measured on."""
    seed: int
    top1: float
    """Percent, on `images` images that were put aside, measured by this project."""
    images: int
    command: str
    """That trained them."""

    @property
    def path(self) -> Path:
        return SAMPLE.with_name(f"{self.name}.safetensors")


SHIPPED: dict[str, ShippedWeights] = {
    shipped.name: shipped
    for shipped in (
        ShippedWeights(
            name="res2net_digits",
            variant="res2net20_cifar",
            licence="Apache-2.0",
            data="handwritten digits, 8 x 8 pixels (scikit-learn's; UCI, CC BY 4.0)",
            seed=0,
            top1=99.17,
            images=360,
            command="res2net train quickstart run.seed=0",
        ),
    )
}


def no_such_model(name: str) -> InputError:
    """The error for what is no path, no variant and nothing shipped."""
    if len(Path(name).parts) > 1 or Path(name).suffix:
        return InputError(f"model {name!r}: no such run directory or file")
    return InputError(
        f"model {name!r}: no such variant; {nearest_variants(name, also=SHIPPED)}; there is no run "
        "directory or file of that name"
    )
