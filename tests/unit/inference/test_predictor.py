"""Images through a real, small network, against the same computed by hand."""

import io
import itertools
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from PIL import Image

from res2net.errors import InputError
from res2net.inference.opened import BATCH_SIZE
from res2net.inference.predictor import Prediction, Predictor
from res2net.preprocessing import Preprocessing
from samples import NAMES, PREPROCESSING, VARIANT, encoded, photo, save_network


@pytest.fixture(scope="module")
def predictor(run):
    return Predictor(run, device="cpu")


def by_hand(network, image: Image.Image) -> torch.Tensor:
    """Scores (10,) without the code under test: resize and centre crop, normalise, softmax."""
    short = min(image.size)
    width, height = (int(32 * side / short) for side in image.size)
    resized = image.convert("RGB").resize((width, height), Image.Resampling.BILINEAR)
    left, top = round((width - 32) / 2), round((height - 32) / 2)
    pixels = np.asarray(resized.crop((left, top, left + 32, top + 32)), dtype=np.float64) / 255
    pixels = (pixels - PREPROCESSING.mean) / PREPROCESSING.std
    with torch.no_grad():
        return network(torch.tensor(pixels).permute(2, 0, 1)[None].float())[0].softmax(dim=0)


def scores(prediction: Prediction) -> torch.Tensor:
    """Scores (10,) in the order of the classes."""
    found = dict(prediction.topk)
    return torch.tensor([found[name] for name in NAMES])


# --- What is predicted ---------------------------------------------------------------------------


def test_scores_are_those_of_the_network_by_hand(predictor, network):
    image = photo()
    expected = by_hand(network, image)
    prediction = predictor(image, topk=10)
    assert expected.max() < 0.99, "a saturated softmax would hide differences"
    torch.testing.assert_close(scores(prediction), expected, atol=1e-5, rtol=0)
    assert prediction.index == expected.argmax()
    assert prediction.label == NAMES[prediction.index]
    assert prediction.topk[0] == (prediction.label, prediction.score)
    values = [score for _, score in prediction.topk]
    assert values == sorted(values, reverse=True)


def test_every_form_of_the_same_image_gives_the_same(predictor, tmp_path):
    image = photo(1)
    path = tmp_path / "image.png"
    path.write_bytes(encoded(image))
    forms = [path, str(path), path.read_bytes(), image, np.asarray(image)]
    predictions = predictor(forms, topk=3)
    assert len({prediction.topk for prediction in predictions}) == 1
    assert [prediction.source for prediction in predictions] == [
        str(path),
        str(path),
        "image 3 of the list",
        "image 4 of the list",
        "image 5 of the list",
    ]


def test_one_image_gives_one_prediction_and_several_a_list(predictor):
    assert isinstance(predictor(photo()), Prediction)
    assert predictor(photo()).source == "the image"
    assert predictor([]) == []
    assert len(predictor([photo()])) == 1
    assert len(predictor(photo(seed) for seed in range(3))) == 3


def test_batches_keep_the_order(predictor):
    images = [photo(seed) for seed in range(2 * BATCH_SIZE + 6)]
    together = predictor(images, topk=10)
    for number in (0, BATCH_SIZE - 1, BATCH_SIZE, len(images) - 1):
        alone = predictor(images[number], topk=10)
        torch.testing.assert_close(scores(together[number]), scores(alone), atol=1e-5, rtol=0)
        assert together[number].source == f"image {number + 1} of the list"


def test_topk_is_cut_to_the_classes_and_at_least_1(predictor):
    assert len(predictor(photo()).topk) == 5
    assert len(predictor(photo(), topk=1).topk) == 1
    assert len(predictor(photo(), topk=1000).topk) == 10
    with pytest.raises(InputError, match="topk=0: at least 1"):
        predictor.stream([], topk=0)


def test_stream_takes_images_as_needed(predictor):
    endless = itertools.cycle([photo(0), photo(1)])
    first = list(itertools.islice(predictor.stream(endless), BATCH_SIZE + 1))
    assert first[0].topk == first[2].topk != first[1].topk


def test_threads_share_a_predictor_and_an_image_not_yet_decoded(predictor):
    bytes_of_image = encoded(photo(2, (800, 600)), "JPEG")
    expected = scores(predictor(bytes_of_image, topk=10))
    lazy = Image.open(io.BytesIO(bytes_of_image))
    with ThreadPoolExecutor(4) as pool:
        answers = list(pool.map(lambda _: predictor([lazy, lazy], topk=10), range(4)))
    for prediction in itertools.chain(*answers):
        torch.testing.assert_close(scores(prediction), expected, atol=1e-5, rtol=0)


def test_unreadable_files_are_named(predictor, tmp_path):
    with pytest.raises(InputError, match=r"none\.png: cannot be read \(No such file"):
        predictor(tmp_path / "none.png")
    with pytest.raises(InputError, match=r": cannot be read \(Is a directory"):
        predictor([photo(), tmp_path])


def test_the_rest_goes_on_without_unreadable_images(predictor):
    told: list[str] = []
    images = [photo(0), b"bad", photo(1), b"worse"]
    found = list(predictor.stream(images, on_unreadable=lambda error: told.append(str(error))))
    assert [prediction.source for prediction in found] == [
        "image 1 of the list",
        "image 3 of the list",
    ]
    assert [prediction.topk for prediction in found] == [
        prediction.topk for prediction in predictor([photo(0), photo(1)])
    ]
    assert [line.split(":")[0] for line in told] == ["image 2 of the list", "image 4 of the list"]


@pytest.mark.filterwarnings("ignore::res2net.weights.preprocessing.AssumedPreprocessing")
def test_a_variant_with_weights_of_which_nothing_else_is_known(network, tmp_path):
    file = save_network(network, tmp_path / "plain.pth", described=False)
    predictor = Predictor(VARIANT, weights=file, device="cpu")
    assert predictor.preprocessing == Preprocessing()
    prediction = predictor(photo())
    assert prediction.label == str(prediction.index)
    assert Predictor(file)(photo()) == prediction  # its tensors tell the variant


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA device")
def test_cuda_agrees_with_the_cpu(run, predictor):
    images = [photo(seed) for seed in range(3)]
    for here, there in zip(
        predictor(images, topk=10), Predictor(run, device="cuda")(images, topk=10), strict=True
    ):
        torch.testing.assert_close(scores(here), scores(there), atol=1e-3, rtol=0)
