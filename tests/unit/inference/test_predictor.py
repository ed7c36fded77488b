"""Images of every kind through a real, small network, against the same computed by hand."""

import io
import itertools
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from PIL import Image

from res2net.errors import InputError, WorkError
from res2net.inference.predictor import BATCH_SIZE, Prediction, Predictor, read_image
from res2net.preprocessing import Preprocessing
from res2net.zoo import create_model

VARIANT = "res2net20_cifar"
NAMES = [f"kind {number}" for number in range(10)]
PREPROCESSING = Preprocessing(image_size=32, crop_fraction=1.0, mean=(0.5, 0.4, 0.3))


def photo(seed: int = 0, size: tuple[int, int] = (48, 40)) -> Image.Image:
    """Smooth random colours."""
    pixels = np.random.default_rng(seed).integers(0, 256, (6, 6, 3), dtype=np.uint8)
    return Image.fromarray(pixels).resize(size, Image.Resampling.BICUBIC)


def encoded(image: Image.Image, form: str = "PNG", **options: object) -> bytes:
    stream = io.BytesIO()
    image.save(stream, form, **options)
    return stream.getvalue()


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    """On a busy machine the threads of one small convolution wait for each other for a second."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def network():
    """Random weights whose batch norms have seen images, so that the scores are not all 0 or 1."""
    torch.manual_seed(0)
    model = create_model(VARIANT).train()
    with torch.no_grad():
        model(torch.randn(64, 3, 32, 32))
        model(torch.randn(64, 3, 32, 32))
    return model.eval()


def save(network, path, *, class_names=NAMES, described=True):
    content = {"state_dict": {f"model.{k}": v for k, v in network.state_dict().items()}}
    if described:
        content["res2net"] = {
            "schema": 1,
            "model": VARIANT,
            "num_classes": 10,
            "class_names": class_names,
            "preprocessing": PREPROCESSING.to_dict(),
        }
    path.parent.mkdir(exist_ok=True)
    torch.save(content, path)
    return path


@pytest.fixture(scope="module")
def run(network, tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs") / "mine"
    save(network, folder / "last.ckpt")
    return folder


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


# --- Images of all kinds -------------------------------------------------------------------------


def test_modes_become_rgb():
    image = photo(3)
    grey = np.asarray(image.convert("L"))
    transparent = image.convert("RGBA")
    transparent.putalpha(Image.fromarray(grey))
    for name, given, expected in [
        ("RGBA keeps the colours under transparency", transparent, image),
        ("LA", transparent.convert("LA"), image.convert("L")),
        ("L", image.convert("L"), image.convert("L")),
        ("P", image.quantize(16), image.quantize(16)),
        ("CMYK", image.convert("CMYK"), image.convert("CMYK")),
        ("1", image.convert("1"), image.convert("1")),
        ("grey array", grey, image.convert("L")),
        ("PNG", encoded(transparent), image),
    ]:
        found = read_image(given, source="it")
        assert found.mode == "RGB"
        np.testing.assert_array_equal(np.asarray(found), np.asarray(expected.convert("RGB")), name)


@pytest.mark.filterwarnings("error")
def test_a_transparent_palette_does_not_warn():
    image = photo(3).quantize(16)
    image_file = encoded(image, transparency=bytes([0, 128]))
    found = read_image(image_file, source="it")
    np.testing.assert_array_equal(np.asarray(found), np.asarray(image.convert("RGB")))


@pytest.mark.parametrize("form", ["PNG", "TIFF", "PGM"])
def test_16_bits_are_scaled(form):
    grey = np.linspace(0, 65535, 48 * 40).astype(np.uint16).reshape(40, 48)
    if form == "PGM":
        file = b"P5\n48 40\n65535\n" + grey.astype(">u2").tobytes()
    else:
        file = encoded(Image.fromarray(grey), form)
    found = np.asarray(read_image(file, source="it"))
    np.testing.assert_array_equal(found[..., 0], np.round(grey / 257).astype(np.uint8))
    np.testing.assert_array_equal(found[..., 1], found[..., 2])


def test_exif_rotation_is_not_applied():
    exif = Image.Exif()
    exif[0x0112] = 6  # to be shown turned by a quarter
    found = read_image(encoded(photo(4, (48, 40)), "JPEG", exif=exif), source="it")
    assert found.size == (48, 40)


# --- What cannot be read -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("image", "reason"),
    [
        (b"no image", "is no image in a known format"),
        (encoded(photo(0), "JPEG")[:400], "Truncated"),
        (encoded(photo(0))[:200], "truncated"),
        (encoded(Image.fromarray(np.ones((4, 4), np.float32)), "TIFF"), "floating-point"),
        (np.zeros((3, 8, 8), np.uint8), r"an array of uint8 \(3, 8, 8\); expected uint8 \(H, W"),
        (np.zeros((8, 8, 3)), "an array of float64"),
        (np.zeros((2, 8, 8, 3), np.uint8), "an array of uint8"),
        (np.full((8, 8), 70000, np.int32), "an array of int32"),
        (Image.fromarray(np.full((8, 8), 70000, np.int32)), "32 bits"),
    ],
)
def test_unreadable_images_are_named(predictor, image, reason):
    with pytest.raises(InputError, match=f"^image 2 of the list: .*{reason}"):
        predictor([photo(), image])
    with pytest.raises(InputError, match=f"^the image: .*{reason}"):
        predictor(image)


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


# --- Which model ---------------------------------------------------------------------------------


def test_evaluation_mode_and_what_the_file_says(predictor):
    assert not predictor.model.training
    assert predictor.preprocessing == PREPROCESSING
    assert predictor.class_names == tuple(NAMES)


def test_checkpoint_of_a_run(network, tmp_path):
    save(network, tmp_path / "mine" / "last.ckpt")
    save(network, tmp_path / "mine" / "best.ckpt", class_names=[f"best {n}" for n in range(10)])
    predictor = Predictor(str(tmp_path / "mine"), checkpoint="best", device="cpu")
    assert predictor.class_names[0] == "best 0"
    assert Predictor(tmp_path / "mine" / "last.ckpt", device="cpu").class_names[0] == "kind 0"


def test_a_variant_with_weights_of_which_nothing_else_is_known(network, tmp_path):
    file = save(network, tmp_path / "plain.pth", described=False)
    predictor = Predictor(VARIANT, weights=file, device="cpu")
    assert predictor.preprocessing == Preprocessing()
    prediction = predictor(photo())
    assert prediction.label == str(prediction.index)
    assert Predictor(file)(photo()) == prediction  # its tensors tell the variant


def test_a_run_called_after_its_variant_is_found(network, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    file = save(network, tmp_path / VARIANT / "last.ckpt")
    assert Predictor(VARIANT, device="cpu").class_names == tuple(NAMES)
    assert Predictor(VARIANT, weights=file, device="cpu").class_names == tuple(NAMES)


def test_models_that_cannot_be(run):
    with pytest.raises(InputError, match=r"'res2net50'.* without weights predicts at random"):
        Predictor("res2net50")
    with pytest.raises(InputError, match=r"no such variant; the nearest: .*no run directory or"):
        Predictor("res2net20")
    with pytest.raises(InputError, match="weights of its own"):
        Predictor(run, weights=run)
    with pytest.raises(InputError, match="device 'tpu': none of auto, cpu, cuda"):
        Predictor(run, device="tpu")


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
def test_no_cuda_device(run):
    with pytest.raises(InputError, match="device 'cuda': PyTorch finds no CUDA device"):
        Predictor(run, device="cuda")
    assert Predictor(run).device.type == "cpu"


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA device")
def test_cuda_agrees_with_the_cpu(run, predictor):
    images = [photo(seed) for seed in range(3)]
    for here, there in zip(
        predictor(images, topk=10), Predictor(run, device="cuda")(images, topk=10), strict=True
    ):
        torch.testing.assert_close(scores(here), scores(there), atol=1e-3, rtol=0)


def test_a_diverged_network_is_said_to_be(network, tmp_path):
    file = save(network, tmp_path / "nan.ckpt")
    content = torch.load(file)
    content["state_dict"]["model.head.fc.bias"] = torch.full((10,), float("nan"))
    torch.save(content, file)
    with pytest.raises(WorkError, match="the image: the network's output is not finite"):
        Predictor(file, device="cpu")(photo())


def test_predicting_needs_neither_lightning_nor_dali():
    check = (
        "import sys, res2net.inference.predictor;"
        "loaded = {'lightning', 'nvidia.dali', 'wandb', 'omegaconf'} & set(sys.modules);"
        "assert not loaded, loaded"
    )
    subprocess.run([sys.executable, "-c", check], check=True)
