"""What the page answers: lines of HTML, names, and that it opens nothing but uploads."""

from pathlib import Path

import numpy as np
import pytest

from res2net.demo.page import _looks, _Page, _unique
from res2net.inference.cam import Explainer, Explanation
from res2net.weights.shipped import SAMPLE


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> _Page:
    uploads = tmp_path_factory.mktemp("uploads")
    (uploads / "digit.png").write_bytes(SAMPLE.read_bytes())
    return _Page({"<b>": Explainer("res2net_digits", device="cpu")}, uploads)


def test_only_what_was_uploaded_is_opened(page: _Page) -> None:
    path = page._uploads / "digit.png"
    assert page.look("<b>", {"path": str(path)}, 3, "Grad-CAM")[0] == ""
    for other in (SAMPLE, page._uploads / ".." / SAMPLE.name, Path("/etc/passwd")):
        message = page.look("<b>", {"path": str(other)}, 3, "Grad-CAM")[0]
        assert message == f"<p>{other.name}: was not uploaded here</p>"


def test_a_class_that_is_none_gets_a_line(page: _Page) -> None:
    image = {"path": str(page._uploads / "digit.png")}
    message, _, picture = page.look_again("<b>", image, 3, "Grad-CAM", 10)
    assert message.startswith("<p>class 10: none of the model&#x27;s 10 classes")
    assert picture is None


def test_no_image_no_answer(page: _Page) -> None:
    assert page.look("<b>", None, 3, "Grad-CAM")[:4] == ["", "Where it looks", None, None]


def test_names_of_models_are_no_markup(page: _Page) -> None:
    assert page.describe("<b>").startswith("&lt;b&gt;: res2net20_cifar, 10 classes; input 16 x 16")


def test_a_heat_of_nothing_is_told() -> None:
    shown = Explanation(
        pixels=np.zeros((4, 4, 3), np.uint8),
        heat=np.zeros((4, 4), np.float32),
        label="<i>",
        index=0,
        score=0.25,
        scores=np.array([0.25, 0.75], np.float32),
        predicted="b",
        source="",
    )
    message, caption, _ = _looks(shown, "")
    assert message == "<p>nothing in this stage speaks for &lt;i&gt;</p>"
    assert caption == "Where it looks for &lt;i&gt; (25.0%)"


def test_namesakes_get_their_index() -> None:
    assert _unique(("crane", "dog", "crane")) == ["crane (0)", "dog", "crane (2)"]
