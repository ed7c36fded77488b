"""What the page answers: lines of HTML, names, and that it opens nothing but uploads."""

from pathlib import Path

import numpy as np
import pytest

from res2net.demo.looking import Looking, _looks, _unique
from res2net.demo.uploads import Upload, Uploads
from res2net.inference.cam import Explainer, Explanation
from res2net.weights.shipped import SAMPLE


@pytest.fixture(scope="module")
def looking(tmp_path_factory: pytest.TempPathFactory) -> Looking:
    uploads = Uploads(tmp_path_factory.mktemp("uploads"))
    uploads._known["bad"] = Upload("a<b>.png", Path("/x"), None, "", "is <no> image", 0)
    uploads._known["lost"] = Upload("l&l.png", Path("/x"), Path("/y/lost.ppm"), "", "", 0)
    return Looking({"<b>": Explainer("res2net_digits", device="cpu")}, uploads)


def test_only_what_was_uploaded_is_opened(looking: Looking) -> None:
    assert looking.look("<b>", "sample", 3, "Grad-CAM")[0] == ""
    for other in (str(SAMPLE), "../digit.png", "/etc/passwd", "", "Sample"):
        message = looking.look("<b>", other, 3, "Grad-CAM")[0]
        assert message == "<p>there is no such image here any more: upload it again</p>"


def test_what_cannot_be_opened_gets_a_line(looking: Looking) -> None:
    message = looking.look("<b>", "bad", 3, "Grad-CAM")[0]
    assert message == "<p>a&lt;b&gt;.png: is &lt;no&gt; image</p>"
    message = looking.look("<b>", "lost", 3, "Grad-CAM")[0]
    assert message == "<p>l&amp;l.png: cannot be read (No such file or directory)</p>"


def test_a_class_or_stage_that_is_none_gets_a_line(looking: Looking) -> None:
    message, _, picture = looking.look_again("<b>", "sample", 3, "Grad-CAM", 10)
    assert message.startswith("<p>class 10: none of the model&#x27;s 10 classes")
    assert picture is None
    assert looking.look("<b>", "sample", 9, "Grad-CAM")[0].startswith("<p>stage 9: ")


def test_no_image_no_answer(looking: Looking) -> None:
    message, caption, heat, classes, _ = looking.look("<b>", None, 3, "Grad-CAM")
    assert (message, caption, heat) == ("", "Where it looks", None)
    assert set(classes.values()) == {None}


def test_names_of_models_are_no_markup(looking: Looking) -> None:
    described = looking.describe("<b>")
    assert described.startswith("&lt;b&gt;: res2net20_cifar, 10 classes; input 16 x 16")


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
