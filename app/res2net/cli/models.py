"""`res2net models`: the variants that have a name, and the published weights of each.

Reads tables; builds no network.
"""

import argparse
import sys
from dataclasses import asdict
from fnmatch import fnmatchcase
from typing import Any

from res2net.cli.telling import tell, tell_json
from res2net.errors import InputError
from res2net.models.variants import ALIASES, VARIANTS, Variant, nearest_variants
from res2net.weights.catalog import DEFAULT, cache_folder, cached, published_for
from res2net.weights.published import PublishedFile
from res2net.weights.shipped import SHIPPED, ShippedWeights

# mmpretrain states 4.22 G for res2net50_14w_8s, whose convolutions and classifier make 4.18 G.
MACS = (
    "MACs: multiply-accumulates of convolutions and classifier for one RGB image; mmpretrain",
    "counts more than these.",
)
WIDTH = 200


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "glob",
        metavar="GLOB",
        nargs="?",
        default="*",
        help="only variants whose name or alias matches, such as 'res2net50*'; all about a single "
        "one",
    )
    parser.add_argument("--json", action="store_true", help="print a list of objects instead")


def run(arguments: argparse.Namespace) -> int:
    """Raises InputError: no variant matches."""
    variants = _matching(arguments.glob)
    if arguments.json:
        tell_json([_as_json(variant) for variant in variants], indent=2)
    elif len(variants) == 1:
        _print_details(variants[0])
    else:
        _print_tables(variants)
    return 0


def _matching(glob: str) -> list[Variant]:
    found = [
        variant
        for variant in VARIANTS.values()
        if any(fnmatchcase(name, glob) for name in (variant.name, *_aliases(variant)))
    ]
    if not found:
        raise InputError(f"{glob!r}: matches no variant and no alias; {nearest_variants(glob)}")
    return found


def _aliases(variant: Variant) -> list[str]:
    return [alias for alias, name in ALIASES.items() if name == variant.name]


def _as_json(variant: Variant) -> dict[str, Any]:
    """Accuracies as fractions, as in all of this project's files; `published` null: none was."""
    published = None
    if variant.top1 is not None:
        published = {
            "top1": _fraction(variant.top1),
            "top5": _fraction(variant.top5),
            "measured_by": variant.measured_by,
        }
    return {
        "name": variant.name,
        "parameters": variant.parameters,
        "macs": variant.macs,
        "image_size": variant.image_size,
        "num_classes": variant.num_classes,
        "published": published,
        "aliases": _aliases(variant),
        "weights": [_file_as_json(published) for published in published_for(variant.name)],
        "shipped": [
            asdict(shipped) | {"top1": _fraction(shipped.top1), "path": str(shipped.path)}
            for shipped in _shipped(variant)
        ],
    }


def _shipped(variant: Variant) -> list[ShippedWeights]:
    return [shipped for shipped in SHIPPED.values() if shipped.variant == variant.name]


def _file_as_json(published: PublishedFile) -> dict[str, Any]:
    path = cached(published)
    return {
        "name": published.name,
        "url": published.url,
        "mirror": published.mirror,
        "licence": published.licence,
        "top1": _fraction(published.top1),
        "top5": _fraction(published.top5),
        "measured_by": published.measured_by,
        "sha256_prefix": published.digest,
        "cached": None if path is None else str(path),
    }


def _fraction(percent: float | None) -> float | None:
    return None if percent is None else round(percent / 100, 6)


def _print_tables(variants: list[Variant]) -> None:
    from res2net.cli.tables import Table

    sizes = Table(tight=True)
    sizes.column("variant", whole=True)
    for heading in ("params", "MACs", "px", "classes", "top-1", "top-5"):
        sizes.column(heading, right=True, whole=True)
    # Lets two sources stand side by side in a terminal of 100 columns.
    sizes.column("measured by", most=len("PaddleClas") if sys.stdout.isatty() else None)
    sizes.column("weights")
    for variant in variants:
        sizes.row(
            variant.name,
            f"{variant.parameters / 1e6:.2f}M",
            f"{variant.macs / 1e9:.2f}G",
            str(variant.image_size),
            str(variant.num_classes),
            "" if variant.top1 is None else f"{variant.top1:.2f}%",
            "" if variant.top5 is None else f"{variant.top5:.2f}%",
            variant.measured_by or "",
            " ".join(
                [
                    published.source + ("*" if cached(published) else "")
                    for published in published_for(variant.name)
                ]
                + [shipped.name for shipped in _shipped(variant)]
            ),
        )
    named = [(alias, variant.name) for variant in variants for alias in _aliases(variant)]
    aliases = Table(tight=True)
    aliases.column("alias", whole=True)
    aliases.column("variant", whole=True)
    for pair in named:
        aliases.row(*pair)
    sizes.tell(width=WIDTH)
    tell(
        "",
        *MACS,
        f"weights: who publishes them, the default first; *: lies in {cache_folder()}.",
        "`res2net models NAME` tells their licence, accuracy and address.",
    )
    if named:
        tell("")
        aliases.tell(width=WIDTH)


def _print_details(variant: Variant) -> None:
    """Plain lines: an address that a table breaks cannot be copied."""
    side = variant.image_size
    _print_lines(
        variant.name,
        ("parameters", f"{variant.parameters:,}"),
        ("MACs", f"{variant.macs:,} at {side} x {side} pixels (convolutions and classifier)"),
        ("classes", str(variant.num_classes)),
        ("published", _accuracy(variant)),
        ("aliases", ", ".join(_aliases(variant)) or "none"),
    )
    files = published_for(variant.name)
    for shipped in _shipped(variant):
        tell("")
        accuracy = f"top-1 {shipped.top1:.2f}% of {shipped.images} images, measured by this project"
        _print_lines(
            f"{shipped.name} (comes with the package)",
            ("accuracy", accuracy),
            ("licence", shipped.licence),
            ("data", shipped.data),
            ("made by", shipped.command),
            ("file", str(shipped.path)),
        )
    if not files and not _shipped(variant):
        tell("", "Nobody published weights that can be fetched.")
    for published in files:
        default = f" ({DEFAULT}, the default)" if published is files[0] else ""
        path = cached(published)
        tell("")
        _print_lines(
            f"{published.name}{default}",
            ("accuracy", _accuracy(published)),
            ("licence", published.licence),
            ("URL", published.url),
            *((("copy", published.mirror),) if published.mirror else ()),
            ("sha256", f"{published.digest}..." if published.digest else "none published"),
            ("cached", "no" if path is None else str(path)),
        )


def _accuracy(figures: Variant | PublishedFile) -> str:
    if figures.top1 is None:
        return "none"
    top5 = "" if figures.top5 is None else f", top-5 {figures.top5:.2f}%"
    return f"top-1 {figures.top1:.2f}%{top5}, measured by {figures.measured_by}"


def _print_lines(title: str, *lines: tuple[str, str]) -> None:
    tell(title, *(f"  {name:<12}{value}" for name, value in lines))
