"""`res2net cam`: pictures of where a network looks, alone or beside another network."""

import argparse
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from res2net.cli.arguments import asked_preprocessing, positive, short_name
from res2net.cli.images import add_image_arguments, find_images, reading
from res2net.cli.telling import plain_warnings, say_problems, shown, tell, tell_json, tell_lost
from res2net.data.sources.scan import counted
from res2net.errors import InputError, WorkError
from res2net.files.atomic import new_folder

if TYPE_CHECKING:
    from res2net.inference.cam import Explanation

_METHODS = {"gradcam": "Grad-CAM", "gradcam++": "Grad-CAM++"}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_image_arguments(parser)
    parser.add_argument(
        "--out",
        metavar="DIR",
        required=True,
        help="folder for the pictures: one an image, called as the image, and sheet.png with "
        "captions; nothing in it is overwritten",
    )
    parser.add_argument(
        "--method", choices=list(_METHODS), default="gradcam", help="how it is computed (gradcam)"
    )
    parser.add_argument(
        "--target", metavar="CLASS", help="the class, by name or index (the predicted one)"
    )
    parser.add_argument(
        "--stage",
        type=positive,
        metavar="N",
        help="the stage that is looked into, from 1 to as many as the model has (the last)",
    )
    parser.add_argument(
        "--against", metavar="MODEL", help="a second model, shown beside it for the same class"
    )
    parser.add_argument(
        "--against-weights", metavar="FILE|NAME", help="its weights, if it is a variant"
    )
    parser.add_argument("--json", action="store_true", help="print the result as JSON")


def run(arguments: argparse.Namespace) -> int:
    """Raises InputError, and WorkError at the end if some images could not be read."""
    from res2net.inference.cam_pictures import SHEET, draw_explanations, name_pictures

    if arguments.against_weights is not None and arguments.against is None:
        raise InputError("--against-weights: there is no second model; name it by --against")
    problems: list[InputError] = []
    images = list(dict.fromkeys(find_images(arguments.images, problems.append)))
    folder = Path(arguments.out)
    files = name_pictures(folder, images)
    say_problems(problems)

    from res2net.inference.cam import Explainer  # PyTorch takes seconds

    models = [(arguments.model, arguments.weights)]
    if arguments.against is not None:
        models.append((arguments.against, arguments.against_weights))
    explainers: dict[str, Explainer] = {}
    with plain_warnings():
        for model, weights in models:
            name = short_name(model)
            try:
                explainers[model if name in explainers else name] = Explainer(
                    model,
                    weights=weights,
                    checkpoint=arguments.checkpoint if os.path.isdir(weights or model) else "last",
                    device=arguments.device,
                    batch_size=arguments.batch_size,
                    ema=arguments.ema and model == arguments.model,
                    method=arguments.method,
                    stage=arguments.stage,
                    preprocessing=asked_preprocessing(arguments),
                )
            except InputError as error:
                if not explainers:
                    raise
                # the second model's weights have an option of their own
                raise InputError(str(error).replace("--weights", "--against-weights")) from error
    stage = f"stage {arguments.stage}" if arguments.stage else "last stage"
    heading = f"{_METHODS[arguments.method]}, {stage}: {' against '.join(explainers)}"

    printed: list[dict[str, Any]] = []
    with reading(images, doing="explaining") as taken, new_folder(folder):
        drawn = draw_explanations(
            explainers,
            files,
            images=images,
            target=arguments.target,
            on_unreadable=taken.on_unreadable,
            heading=heading,
        )
        for explanations in taken.follow(drawn):
            file = str(files[explanations[0].source])
            printed.append(_as_json(file, explanations))
        if not printed:
            raise WorkError(f"{folder}: no picture was made, not one image could be read")

    if arguments.json:
        sheet = str(folder / SHEET)
        result = {"sheet": sheet, "unreadable": taken.unreadable, "pictures": printed}
        tell_json(result)
    else:
        tell(f"{shown(folder)}: {counted(len(printed), 'picture')} and {SHEET}")
    tell_lost(
        "pictures",
        f"are in {folder}",
        given=len(images),
        unreadable=taken.unreadable,
        problems=bool(problems),
    )
    return 0


def _as_json(file: str, explanations: "tuple[Explanation, ...]") -> dict[str, Any]:
    def describe(each: "Explanation") -> dict[str, Any]:
        return {
            "label": each.label,
            "index": each.index,
            "score": each.score,
            "predicted": each.predicted,
        }

    first, *others = explanations
    against = {"against": describe(others[0])} if others else {}
    return {"source": first.source, "file": file, **describe(first), **against}
