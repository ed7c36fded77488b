"""Features through a real, small network, against the same by a plain forward pass."""

import copy
import itertools

import numpy as np
import pytest
import torch

import res2net
from res2net.errors import InputError, WorkError
from res2net.inference.cam import Explainer
from res2net.inference.features import FeatureExtractor
from res2net.inference.predictor import Predictor
from samples import PREPROCESSING, VARIANT, photo, save_network

BATCH = 4


@pytest.fixture(scope="module")
def extractor(run):
    return FeatureExtractor(run, device="cpu", batch_size=BATCH)


def by_hand(network, images) -> np.ndarray:
    """Features (N, C) of one batch: what goes into the classifier's linear layer."""
    seen = []
    # as it runs there: another memory format sums in another order
    network = copy.deepcopy(network).to(memory_format=torch.channels_last)
    network.head.fc.register_forward_pre_hook(lambda _, given: seen.append(given[0]))
    transform = PREPROCESSING.transform()
    with torch.no_grad():
        network(PREPROCESSING.normalise(torch.stack([transform(image) for image in images])))
    return seen[0].numpy()


def test_features_are_the_classifiers_input_to_the_bit(extractor, network):
    images = [photo(seed) for seed in range(2 * BATCH + 1)]
    found = extractor(images)
    assert (found.dtype, found.shape) == (np.float32, (2 * BATCH + 1, extractor.num_features))
    expected = [by_hand(network, images[start : start + BATCH]) for start in (0, 4, 8)]
    np.testing.assert_array_equal(found, np.concatenate(expected))
    assert len(np.unique(found, axis=0)) == len(images)


def test_the_classifier_of_the_features_predicts_as_the_predictor(extractor, run):
    logits = extractor.model.head.fc(torch.from_numpy(extractor(photo(3))))
    prediction = Predictor(run, device="cpu")(photo(3))
    assert prediction.index == logits.argmax()
    assert prediction.score == pytest.approx(logits.softmax(dim=1).max().item(), abs=1e-6)


def test_always_a_row_an_image(extractor):
    assert extractor(photo()).shape == (1, extractor.num_features)
    assert extractor([]).shape == (0, extractor.num_features)
    assert extractor([]).dtype == np.float32


def test_any_stage(run, network):
    images = [photo(seed) for seed in range(BATCH)]
    seen = []
    hooks = [
        stage.register_forward_hook(lambda _, given, output: seen.append(output.mean(dim=(2, 3))))
        for stage in network.backbone.stages
    ]
    by_hand(network, images)
    for hook in hooks:
        hook.remove()
    for stage, expected in enumerate(seen, start=1):
        one = FeatureExtractor(run, device="cpu", stage=stage)
        assert dict(one.parts) == {"features": expected.shape[1]}
        np.testing.assert_allclose(one(images), expected.numpy(), atol=1e-5)
    every = FeatureExtractor(run, device="cpu", stage="all")
    assert dict(every.parts) == {f"stage{n}": rows.shape[1] for n, rows in enumerate(seen, 1)}
    np.testing.assert_allclose(every(images), torch.cat(seen, dim=1).numpy(), atol=1e-5)
    for stage in (0, 4, -1, "last"):
        with pytest.raises(InputError, match=r"has the stages 1 to 3; also: pooled, all$"):
            FeatureExtractor(run, stage=stage)


def test_stream_gives_batches_in_order_without_unreadable_images(extractor):
    told = []
    images = [photo(0), b"bad", *(photo(seed) for seed in range(1, BATCH + 2))]
    stream = extractor.stream(images, on_unreadable=lambda error: told.append(str(error)))
    (first, rows), (second, last) = stream
    assert first == tuple(f"image {number} of the list" for number in (1, 3, 4, 5))
    assert second == ("image 6 of the list", "image 7 of the list")
    assert (rows.shape[0], last.shape[0]) == (BATCH, 2)
    assert told == ["image 2 of the list: is no image in a known format"]
    with pytest.raises(InputError, match=r"^image 2 of the list: is no image"):
        extractor(images)


def test_stream_takes_images_as_needed(extractor):
    stream = extractor.stream(itertools.cycle([photo(0), photo(1)]))
    names, rows = next(stream)
    assert len(names) == BATCH
    np.testing.assert_allclose(rows[0], rows[2], atol=1e-5)
    stream.close()


def test_a_variant_needs_weights(run):
    with pytest.raises(InputError, match="without weights"):
        FeatureExtractor(VARIANT)
    assert FeatureExtractor(VARIANT, weights=run).num_features == 128


def test_infinite_features_are_told(network, tmp_path):
    file = save_network(network, tmp_path / "nan.ckpt")
    content = torch.load(file)
    key = next(key for key in content["state_dict"] if "conv1.weight" in key)
    content["state_dict"][key].fill_(float("nan"))
    torch.save(content, file)
    with pytest.raises(WorkError, match=r"^image 1 of the list: the network's output is not"):
        FeatureExtractor(file, device="cpu")([photo()])


def test_where_users_find_it():
    assert res2net.FeatureExtractor is FeatureExtractor
    assert res2net.Explainer is Explainer


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA device")
def test_cuda_agrees_with_the_cpu(run, extractor):
    images = [photo(seed) for seed in range(BATCH)]
    here, there = extractor(images), FeatureExtractor(run, device="cuda")(images)
    np.testing.assert_allclose(here, there, atol=1e-3 * here.std())
