"""What the page shows: an image goes in, its classes and where the network looks come out.

Importing this imports Gradio, which reads the environment that `server.serve` sets before.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import gradio as gr

from res2net.demo.decoding import FORMATS, MOST_PIXELS
from res2net.demo.looking import METHOD_NAMES, TOPK, Looking, data_url
from res2net.demo.uploads import LARGEST, Uploads
from res2net.errors import InputError
from res2net.inference.cam import Explainer
from res2net.weights.shipped import SAMPLE

STYLE = """
main { max-width: 1180px !important; margin: auto }
#title h1 { margin: 0 }
.heading { font-weight: 700 }
.heading .html-container, #facts .html-container, #message .html-container { padding: 0 }
#message p { color: var(--error-text-color); margin: 0 }
#message:not(:has(p)) { display: none }
#image img, #heat img { width: 100%; height: 100%; object-fit: contain }
#limits, #sample { font-size: var(--text-sm); color: var(--block-label-text-color) }
#limits .html-container, #sample .html-container { padding: 0 }
#sample button { text-align: left; cursor: pointer }
#sample img { width: 80px; height: 80px; margin-top: 6px; border-radius: 6px }
#classes .confidence-set { padding: 2px 0 }
"""
_SIDE = 336  # pixels of the pictures on the page
_LIMITS = (
    f"{', '.join(FORMATS.values())}; up to {LARGEST // 2**20} MB and "
    f"{MOST_PIXELS // 1_000_000} megapixels"
)


class DemoPage:
    """The page for models by name, the first at first.

    Attributes:
        blocks: What Gradio draws. It runs no function for us: `answer` does.
    """

    def __init__(self, explainers: Mapping[str, Explainer], uploads: Uploads) -> None:
        self._models = list(explainers)
        self._looking = Looking(explainers, uploads)
        self._events: dict[int, tuple[Callable[..., list[Any]], tuple[str, ...]]] = {}
        self.blocks = self._build()

    def answer(self, event: object, values: object) -> list[Any]:
        """The new contents of what an event changes.

        Args:
            event: Which of the page's.
            values: Of its inputs. A stranger may send anything as either.

        Raises:
            InputError: It is no event of the page, or a value that the page does not offer.
        """
        known = self._events.get(event) if type(event) is int else None
        if known is None or not isinstance(values, list) or len(values) != len(known[1]):
            raise InputError("no event of this page")
        function, names = known
        given = dict(zip(names, values, strict=True))
        for name, value in given.items():
            given[name] = self._checked(name, value)
        return function(**given)

    def _checked(self, name: str, value: object) -> object:
        """What a function of `Looking` takes. Raises InputError."""
        match name, value:
            case "model", str() if value in self._models:
                return value
            case "method", str() if value in METHOD_NAMES:
                return value
            case "stage", int() if value is not True and 1 <= value <= 9:  # of another model, say
                return value
            case "target", None:
                return value
            case "target", int() if type(value) is int and value >= 0:
                return value
            case "image", None:
                return None
            case "image", {"path": str(given)}:
                return given
        raise InputError(f"no {name} of this page")

    def _build(self) -> gr.Blocks:
        looking, first = self._looking, self._models[0]
        stages, last = looking.stages(first)
        with gr.Blocks(title="Res2Net", analytics_enabled=False) as blocks:
            gr.Markdown("# Res2Net: what it sees, and where it looks", elem_id="title")
            with gr.Row(equal_height=False):
                with gr.Column():
                    gr.HTML("An image: drop, paste or choose it", elem_classes="heading")
                    image = gr.Image(
                        show_label=False,
                        sources=["upload", "clipboard"],
                        height=_SIDE,
                        buttons=[],
                        elem_id="image",
                    )
                    gr.HTML(_LIMITS, apply_default_css=False, elem_id="limits")
                    sample = gr.HTML(_sample(), apply_default_css=False, elem_id="sample")
                with gr.Column():
                    gr.HTML("What it is", elem_classes="heading")
                    model = _choice(self._models, first, "Model", "model")
                    facts = gr.HTML(looking.describe(first), elem_id="facts")
                    message = gr.HTML(elem_id="message")
                    classes = gr.Label(num_top_classes=TOPK, show_label=False, elem_id="classes")
                with gr.Column():
                    caption = gr.HTML("Where it looks", elem_classes="heading", elem_id="caption")
                    heat = gr.Image(
                        show_label=False,
                        height=_SIDE,
                        buttons=["fullscreen"],
                        interactive=False,
                        elem_id="heat",
                    )
                    target = gr.Dropdown(
                        looking.classes(first), label="For the class", elem_id="class"
                    )
                    with gr.Row():
                        stage = _choice(stages, last, "In the stage", "stage")
                        method = _choice(list(METHOD_NAMES), "Grad-CAM", "By", "method")
            shown = [message, caption, heat]
            results = [*shown, classes, target]
            given = {"model": model, "image": image, "method": method}
            self._on(sample.click, looking.take_sample, {}, [image])
            self._on(image.change, looking.look, given | {"stage": stage}, results)
            self._on(model.change, looking.switch, given, [*results, facts, stage])
            given |= {"stage": stage, "target": target}
            for choice in (target, stage, method):
                self._on(choice.input, looking.look_again, given, shown)
        return blocks

    def _on(
        self,
        event: Callable[..., Any],
        function: Callable[..., list[Any]],
        given: Mapping[str, Any],
        changed: list[Any],
    ) -> None:
        """Let a function answer an event. `given`: the inputs, by what the function calls them."""
        drawn = event(
            function,
            list(given.values()),
            changed,
            queue=False,  # an answer goes to who asked, or nowhere
            api_visibility="private",
            show_progress="minimal",
        )
        self._events[drawn["id"]] = function, tuple(given)


def _choice(choices: list[Any], value: object, label: str, name: str) -> gr.Dropdown:
    return gr.Dropdown(
        choices, value=value, label=label, filterable=False, min_width=100, elem_id=name
    )


def _sample() -> str:
    picture = data_url(SAMPLE.read_bytes())
    return f'<button type="button">Or this handwritten 3<img src="{picture}" alt=""></button>'
