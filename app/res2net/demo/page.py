"""What the page shows: an image goes in, its classes and where the network looks come out.

Importing this imports Gradio, which reads the environment that `server.serve` sets before.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Mapping
from html import escape
from pathlib import Path
from typing import Any

import gradio as gr

from res2net.errors import InputError, WorkError
from res2net.files.names import printable
from res2net.inference.cam import METHODS, Explainer, Explanation
from res2net.plots.heat import PICTURE_SIDE, overlay
from res2net.weights.shipped import SAMPLE

TOPK = 5
_METHODS = dict(zip(("Grad-CAM", "Grad-CAM++"), METHODS, strict=True))

STYLE = """
main { max-width: 1180px !important; margin: auto }
#title h1 { margin: 0 }
.heading { font-weight: 700 }
.heading .html-container, #facts .html-container, #message .html-container { padding: 0 }
#message p { color: var(--error-text-color); margin: 0 }
#message:not(:has(p)) { display: none }
#image img, #heat img { width: 100%; height: 100%; object-fit: contain }
#classes .confidence-set { padding: 2px 0 }
"""
_SIDE = 336  # pixels of the pictures on the page


def build_page(explainers: Mapping[str, Explainer], uploads: Path) -> gr.Blocks:
    """The page for models by name, the first at first. `uploads`: where Gradio puts images."""
    page = _Page(explainers, uploads)
    first = next(iter(explainers))
    stages, last = page.stages(first)
    with gr.Blocks(title="Res2Net", analytics_enabled=False, delete_cache=(600, 3600)) as blocks:
        gr.Markdown("# Res2Net: what it sees, and where it looks", elem_id="title")
        with gr.Row(equal_height=False):
            with gr.Column():
                gr.HTML("An image: drop, paste or choose it", elem_classes="heading")
                image = gr.Image(
                    show_label=False,
                    image_mode=None,
                    sources=["upload", "clipboard"],
                    type="filepath",
                    height=_SIDE,
                    buttons=[],
                    elem_id="image",
                )
                gr.Examples([[str(SAMPLE)]], [image], label="Or this handwritten 3")
            with gr.Column():
                gr.HTML("What it is", elem_classes="heading")
                model = gr.Dropdown(
                    list(explainers), value=first, label="Model", filterable=False, elem_id="model"
                )
                facts = gr.HTML(page.describe(first), elem_id="facts")
                message = gr.HTML(elem_id="message")
                classes = gr.Label(num_top_classes=TOPK, show_label=False, elem_id="classes")
            with gr.Column():
                caption = gr.HTML(_caption(None), elem_classes="heading", elem_id="caption")
                heat = gr.Image(
                    show_label=False,
                    format="png",
                    height=_SIDE,
                    buttons=["fullscreen"],
                    interactive=False,
                    elem_id="heat",
                )
                target = gr.Dropdown(page.classes(first), label="For the class", elem_id="class")
                with gr.Row():
                    stage = gr.Dropdown(
                        stages,
                        value=last,
                        label="In the stage",
                        filterable=False,
                        min_width=100,
                        elem_id="stage",
                    )
                    method = gr.Dropdown(
                        list(_METHODS),
                        value="Grad-CAM",
                        label="By",
                        filterable=False,
                        min_width=100,
                        elem_id="method",
                    )
        options: dict[str, Any] = {
            # Gradio's own would open the file; what is none is told on the page instead
            "preprocess": False,
            "concurrency_id": "network",
            "concurrency_limit": 1,
            "api_visibility": "private",
            "show_progress": "minimal",
        }
        results = [message, caption, heat, classes, target]
        image.change(page.look, [model, image, stage, method], results, **options)
        model.change(page.switch, [model, image, method], [*results, facts, stage], **options)
        for choice in (target, stage, method):
            choice.input(
                page.look_again, [model, image, stage, method, target], results[:3], **options
            )
    return blocks


class _Page:
    """What is done when somebody does something on the page."""

    def __init__(self, explainers: Mapping[str, Explainer], uploads: Path) -> None:
        self._explainers = explainers
        self._uploads = uploads.resolve()
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

    def look(self, model: str, image: Any, stage: int, method: str) -> list[Any]:
        """Message, caption, heat, classes and the selector of the class, for another image."""
        shown, problem = self._explain(model, image, stage, method, None)
        index = shown.index if shown is not None else None
        selector = gr.Dropdown(choices=self.classes(model), value=index)
        scores = None
        if shown is not None:
            best = shown.scores.argsort()[::-1][:TOPK]
            scores = {self._names[model][row]: float(shown.scores[row]) for row in best}
        return [*_looks(shown, problem), scores, selector]

    def switch(self, model: str, image: Any, method: str) -> list[Any]:
        """The same for another model, then its line and the selector of the stage."""
        stages, last = self.stages(model)
        selector = gr.Dropdown(choices=stages, value=last)
        return [*self.look(model, image, last, method), self.describe(model), selector]

    def look_again(
        self, model: str, image: Any, stage: int, method: str, target: int | None
    ) -> list[Any]:
        """Message, caption and heat for the same image and model."""
        shown, problem = self._explain(model, image, stage, method, target)
        return _looks(shown, problem)

    def _explain(
        self, model: str, image: Any, stage: int, method: str, target: int | None
    ) -> tuple[Explanation | None, str]:
        """An explanation, or a line of HTML that says why there is none, empty without an image.

        `image` is what the browser sends, a mapping with the `path` of what it uploaded.
        """
        if not image:
            return None, ""
        path = Path(image["path"])
        try:
            if not path.resolve().is_relative_to(self._uploads):  # Gradio sees to it as well
                raise InputError(f"{path}: was not uploaded here")
            explainer = self._explainers[model]
            (shown,) = explainer([path], target, method=_METHODS[method], stage=stage)
        except (InputError, WorkError) as error:
            # where it lies here is nothing to those who look at the page
            text = str(error).replace(os.fspath(path), printable(path.name))
            return None, f"<p>{escape(text)}</p>"
        return shown, ""


def _looks(shown: Explanation | None, problem: str) -> list[Any]:
    """Message, caption and heat."""
    if shown is None:
        return [problem, _caption(None), None]
    none = f"<p>nothing in this stage speaks for {escape(shown.label)}</p>"
    picture = overlay(shown.pixels, shown.heat, PICTURE_SIDE)
    return ["" if shown.heat.any() else none, _caption(shown), picture]


def _caption(shown: Explanation | None) -> str:
    if shown is None:
        return "Where it looks"
    return f"Where it looks for {escape(shown.label)} ({shown.score:.1%})"


def _unique(names: tuple[str, ...]) -> list[str]:
    """The same, namesakes with their indices."""
    count = Counter(names)
    return [f"{name} ({i})" if count[name] > 1 else name for i, name in enumerate(names)]
