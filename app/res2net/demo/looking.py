"""What is answered when somebody does something on the page, in the form that Gradio's page reads.

All text is escaped where it is HTML: names of classes and files are anybody's.
"""

from __future__ import annotations

import base64
import io
from collections import Counter
from collections.abc import Mapping
from html import escape
from typing import Any

from res2net.demo.uploads import Uploads
from res2net.errors import InputError, WorkError
from res2net.inference.cam import METHODS, Explainer, Explanation
from res2net.plots.heat import PICTURE_SIDE, overlay

TOPK = 5
METHOD_NAMES = dict(zip(("Grad-CAM", "Grad-CAM++"), METHODS, strict=True))


class Looking:
    """Looks at what was uploaded, by models that are known by name."""

    def __init__(self, explainers: Mapping[str, Explainer], uploads: Uploads) -> None:
        self._explainers = explainers
        self._uploads = uploads
        self._names = {name: _unique(each.class_names) for name, each in explainers.items()}

    def describe(self, model: str) -> str:
        """A model in one line of HTML."""
        explainer = self._explainers[model]
        size, resized = explainer.preprocessing.image_size, explainer.preprocessing.resize_size
        crop = f"the centre of {resized} x {resized}" if resized != size else "the centre square"
        network = explainer.model.variant or "a network of one's own"
        count = len(explainer.class_names)
        return escape(
            f"{model}: {network}, {count:,} classes; input {size} x {size} pixels, {crop}"
        )

    def classes(self, model: str) -> list[tuple[str, int]]:
        """Names and indices, as a selector takes them."""
        return [(name, index) for index, name in enumerate(self._names[model])]

    def stages(self, model: str) -> tuple[list[tuple[str, int]], int]:
        """All stages, as a selector takes them, and the last."""
        last = self._explainers[model].stages
        return [(str(stage), stage) for stage in range(1, last + 1)], last

    def look(self, model: str, image: str | None, stage: int, method: str) -> list[Any]:
        """Message, caption, heat, classes and the selector of the class, for another image."""
        shown, problem = self._explain(model, image, stage, method, None)
        selector = _selector(self.classes(model), shown.index if shown is not None else None)
        scores: dict[str, Any] = {"label": None, "confidences": None}
        if shown is not None:
            names, best = self._names[model], shown.scores.argsort()[::-1][:TOPK]
            rows = [{"label": names[row], "confidence": float(shown.scores[row])} for row in best]
            scores = {"label": rows[0]["label"], "confidences": rows}
        return [*_looks(shown, problem), scores, selector]

    def switch(self, model: str, image: str | None, method: str) -> list[Any]:
        """The same for another model, then its line and the selector of the stage."""
        stages, last = self.stages(model)
        looks = self.look(model, image, last, method)
        return [*looks, self.describe(model), _selector(stages, last)]

    def look_again(
        self, model: str, image: str | None, stage: int, method: str, target: int | None
    ) -> list[Any]:
        """Message, caption and heat for the same image and model."""
        shown, problem = self._explain(model, image, stage, method, target)
        return _looks(shown, problem)

    def take_sample(self) -> list[Any]:
        """The image that comes with the package, as if it had been uploaded."""
        url = f"gradio_api/file={Uploads.SAMPLE}"
        file = {"path": Uploads.SAMPLE, "url": url, "meta": {"_type": "gradio.FileData"}}
        return [file]

    def _explain(
        self, model: str, image: str | None, stage: int, method: str, target: int | None
    ) -> tuple[Explanation | None, str]:
        """An explanation, or a line of HTML that says why there is none, empty without an image.

        `image` is the name that an upload was given.
        """
        if image is None:
            return None, ""
        try:
            upload = self._uploads.get(image)
            if upload is None:
                raise InputError("there is no such image here any more: upload it again")
            if upload.pixels is None:
                raise InputError(f"{upload.name}: {upload.problem}")
            explainer = self._explainers[model]
            (shown,) = explainer([upload.pixels], target, method=METHOD_NAMES[method], stage=stage)
        except (InputError, WorkError) as error:
            text = str(error)
            if upload is not None and upload.pixels is not None:
                # where it lies here is nothing to those who look at the page
                text = text.replace(str(upload.pixels), upload.name)
            return None, f"<p>{escape(text)}</p>"
        return shown, ""


def _looks(shown: Explanation | None, problem: str) -> list[Any]:
    """Message, caption and heat."""
    if shown is None:
        return [problem, _caption(None), None]
    none = f"<p>nothing in this stage speaks for {escape(shown.label)}</p>"
    picture = io.BytesIO()
    overlay(shown.pixels, shown.heat, PICTURE_SIDE).save(picture, "PNG")
    heat = {"url": data_url(picture.getvalue()), "path": None, "orig_name": "heat.png"}
    return ["" if shown.heat.any() else none, _caption(shown), heat]


def data_url(png: bytes) -> str:
    """A picture as an address, so that there is no file of it that others could ask for."""
    return f"data:image/png;base64,{base64.b64encode(png).decode()}"


def _selector(choices: list[tuple[str, int]], value: int | None) -> dict[str, Any]:
    return {"choices": choices, "value": value, "__type__": "update"}


def _caption(shown: Explanation | None) -> str:
    if shown is None:
        return "Where it looks"
    return f"Where it looks for {escape(shown.label)} ({shown.score:.1%})"


def _unique(names: tuple[str, ...]) -> list[str]:
    """The same, namesakes with their indices."""
    count = Counter(names)
    return [f"{name} ({i})" if count[name] > 1 else name for i, name in enumerate(names)]
