"""Heat maps against the papers' formulas, computed here from what hooks see."""

import copy
import itertools
import sys
import threading

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from res2net.errors import InputError, WorkError
from res2net.inference.cam import Explainer, heat_maps
from res2net.inference.predictor import Predictor
from res2net.zoo import create_model
from samples import NAMES, PREPROCESSING, photo, save_network

METHODS = pytest.mark.parametrize("method", ["gradcam", "gradcam++"])
# The stages of a ResNet, a DLA and one for CIFAR, whose first stage is as large as the image
VARIANTS = {"res2net50_26w_4s": 4, "res2net_dla60": 4, "res2net20_cifar": 3}


@pytest.fixture(scope="module")
def networks():
    """Random weights whose batch norms have seen images."""
    built = {}
    for name in VARIANTS:
        torch.manual_seed(1)
        model = create_model(name, num_classes=10).train()
        for module in model.modules():
            if isinstance(module, torch.nn.BatchNorm2d):
                module.momentum = None
        with torch.no_grad():
            model(pictures(16))
        built[name] = model.eval()
    return built


def pictures(count: int) -> torch.Tensor:
    """(count, 3, 64, 56): no squares, so that height and width cannot be taken for each other."""
    transform = torch.stack(
        [torch.from_numpy(np.array(photo(seed, (56, 64)))) for seed in range(count)]
    )
    return PREPROCESSING.normalise(transform.permute(0, 3, 1, 2))


def stage_modules(network):
    backbone = network.backbone
    if hasattr(backbone, "stages"):
        return list(backbone.stages)
    return [backbone.level2, backbone.level3, backbone.level4, backbone.level5]


def by_hooks(network, images, classes):
    """Heat (N, H, W) by method and stage: each image on its own, equation by equation, float64."""
    network = copy.deepcopy(network).double()
    seen = {}

    def watch(stage, module):
        def keep(_, given, output):
            seen[stage] = [output.detach()[0]]
            output.register_hook(lambda gradient: seen[stage].append(gradient[0]))

        module.register_forward_hook(keep)

    for stage, module in enumerate(stage_modules(network), start=1):
        watch(stage, module)
    heats = {}
    for image, index in zip(images.double(), classes, strict=True):
        network(image[None])[0, index].backward()
        for stage, (maps, gradient) in seen.items():  # twice (C, h, w)
            total = maps.sum(dim=(1, 2), keepdim=True)
            alpha = gradient**2 / (2 * gradient**2 + total * gradient**3)
            weights = {
                "gradcam": gradient.mean(dim=(1, 2)),
                "gradcam++": torch.where(gradient > 0, alpha * gradient, 0).sum(dim=(1, 2)),
            }
            for method, weight in weights.items():
                heat = stretch((weight[:, None, None] * maps).sum(dim=0).relu())
                size = {"size": image.shape[1:], "mode": "bilinear", "align_corners": False}
                heat = stretch(F.interpolate(heat[None, None], **size)[0, 0])
                heats.setdefault((method, stage), []).append(heat)
    return {key: torch.stack(value) for key, value in heats.items()}


def stretch(heat):
    """To 0..1; where nothing speaks for a class, all stays 0."""
    heat = heat - heat.min()
    return heat / heat.max() if heat.max() > 0 else heat


@pytest.mark.parametrize("variant", VARIANTS)
def test_heat_agrees_with_hooks_on_every_stage(networks, variant):
    # In float64: the rounding of float32 grows to 1e-3 on its way through fifty random layers.
    network, images = copy.deepcopy(networks[variant]).double(), pictures(2).double()
    classes, found = [7, 0], []
    reference = by_hooks(network, images, classes)
    assert len(reference) == 2 * VARIANTS[variant]
    for (method, stage), expected in reference.items():
        heat, logits = heat_maps(network, images, classes=classes, stage=stage, method=method)
        assert heat.shape == (2, 64, 56)
        assert heat.dtype == torch.float32
        assert (heat.amin(), heat.amax()) == (0, pytest.approx(1, abs=1e-5))
        torch.testing.assert_close(heat.double(), expected, atol=1e-5, rtol=0)
        torch.testing.assert_close(logits, network(images).detach())
        found.append(heat)
    last, _ = heat_maps(network, images, classes=classes, method="gradcam++")
    assert torch.equal(last, found[-1])
    assert all((a - b).abs().max() > 0.01 for a, b in itertools.combinations(found, 2))


@METHODS
def test_faint_gradients_have_the_same_map(networks, method):
    """A classifier's weights times 1e-4: the same places, in either method nearly."""
    network = networks["res2net20_cifar"]
    expected, _ = heat_maps(network, pictures(2), classes=[1, 2], method=method)
    with torch.no_grad():
        network.head.fc.weight.mul_(1e-4)
    try:
        heat, _ = heat_maps(network, pictures(2), classes=[1, 2], method=method)
        formula = by_hooks(network, pictures(2), [1, 2])[method, 3]
    finally:
        with torch.no_grad():
            network.head.fc.weight.mul_(1e4)
    torch.testing.assert_close(heat.double(), formula, atol=1e-5, rtol=0)
    if method == "gradcam":
        torch.testing.assert_close(heat, expected, atol=1e-4, rtol=0)


def test_the_predicted_class_is_the_default(networks):
    network, images = networks["res2net20_cifar"], pictures(4)
    heat, logits = heat_maps(network, images)
    named, _ = heat_maps(network, images, classes=logits.argmax(dim=1).tolist())
    assert torch.equal(heat, named)
    other, _ = heat_maps(network, images, classes=logits.argmin(dim=1).tolist())
    assert (heat - other).abs().amax(dim=(1, 2)).min() > 0.1


def test_the_network_is_left_as_it_was(networks):
    network = networks["res2net_dla60"]
    before = {key: value.clone() for key, value in network.state_dict().items()}
    heat_maps(network, pictures(1))
    assert all(weight.requires_grad and weight.grad is None for weight in network.parameters())
    assert not any(module._forward_hooks for module in network.modules())
    assert not network.training
    after = network.state_dict()
    assert all(torch.equal(after[key], value) for key, value in before.items())


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"stage": 4}, "^stage 4: res2net20_cifar has the stages 1 to 3$"),
        ({"stage": 0}, "^stage 0: "),
        ({"classes": [10]}, "^class 10: 0 to 9$"),
        ({"classes": [-1]}, "^class -1: "),
        ({"method": "cam"}, r"^method 'cam': none of gradcam, gradcam\+\+$"),
    ],
)
def test_bad_input(networks, given, message):
    with pytest.raises(InputError, match=message):
        heat_maps(networks["res2net20_cifar"], pictures(1), **given)


# --- Of images -----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def explainer(run):
    return Explainer(run, device="cpu", batch_size=2)


def test_explanations(explainer, run, network):
    images = [photo(seed) for seed in range(5)]
    found = explainer(images)
    predictions = Predictor(run, device="cpu", batch_size=2)(images)
    transform = PREPROCESSING.transform()
    for image, each, prediction in zip(images, found, predictions, strict=True):
        assert (each.label, each.index) == (prediction.label, prediction.index)
        assert each.predicted == prediction.label
        assert each.score == pytest.approx(prediction.score, abs=1e-6)
        assert each.source == prediction.source
        pixels = transform(image)
        np.testing.assert_array_equal(each.pixels, pixels.permute(1, 2, 0).numpy())
        expected = by_hooks(network, PREPROCESSING.normalise(pixels[None]), [each.index])
        np.testing.assert_allclose(each.heat, expected["gradcam", 3][0], atol=1e-5)


def test_any_class_by_name_and_index(explainer):
    images = [photo(seed) for seed in range(3)]
    for target in ("kind 3", 3, "3", ["kind 3", 3, "3"]):
        found = explainer(images, target)
        assert [(each.label, each.index) for each in found] == [("kind 3", 3)] * 3
    mixed = explainer(images, [5, 1, 8])
    assert [each.index for each in mixed] == [5, 1, 8]
    for each, image in zip(mixed, images, strict=True):
        np.testing.assert_allclose(each.heat, explainer(image, each.index)[0].heat, atol=1e-5)
        assert each.predicted == explainer(image)[0].label


def test_unknown_classes(explainer, network, tmp_path):
    for target in ("kin 3", 10, "10", -1):
        with pytest.raises(InputError, match=r"none of the model's 10 classes; give a name or"):
            explainer.stream([photo()], target)  # at once
    with pytest.raises(InputError, match=r"near: kind 3"):
        explainer.find_class("kin 3")
    with pytest.raises(InputError, match=r"^2 classes for 1 images"):
        explainer(photo(), [1, 2])
    twice = save_network(network, tmp_path / "twice.ckpt", class_names=[*NAMES[:8], "x", "x"])
    with pytest.raises(InputError, match=r"^class 'x': several are called so; indices: 8, 9$"):
        Explainer(twice, device="cpu").find_class("x")


def test_unreadable_images_are_left_out(explainer):
    told = []
    images = [photo(0), b"bad", photo(1), photo(2)]
    found = list(explainer.stream(images, 4, on_unreadable=lambda error: told.append(str(error))))
    assert [each.source for each in found] == [f"image {n} of the list" for n in (1, 3, 4)]
    np.testing.assert_allclose(found[1].heat, explainer(photo(1), 4)[0].heat, atol=1e-5)
    assert told == ["image 2 of the list: is no image in a known format"]
    with pytest.raises(InputError, match=r"^image 2 of the list"):
        explainer(images)
    assert explainer([]) == []


def test_threads_do_not_disturb_each_other(explainer):
    images = [photo(seed) for seed in range(6)]
    expected = explainer(images)
    found = {}
    threads = [
        threading.Thread(target=lambda n=n: found.update({n: explainer(images)})) for n in range(3)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for explanations in found.values():
        for each, other in zip(explanations, expected, strict=True):
            np.testing.assert_array_equal(each.heat, other.heat)
    assert len(found) == 3


def test_a_diverged_network_is_told(network, tmp_path):
    file = save_network(network, tmp_path / "nan.ckpt")
    content = torch.load(file)
    content["state_dict"]["model.head.fc.bias"].fill_(float("nan"))
    torch.save(content, file)
    with pytest.raises(WorkError, match=r"^image 1 of the list: the network's output is not"):
        Explainer(file, device="cpu")([photo()])


def test_without_the_library(run, monkeypatch):
    monkeypatch.setitem(sys.modules, "pytorch_grad_cam", None)
    with pytest.raises(InputError, match=r"pip install 'res2net-lightning\[explain\]'$"):
        Explainer("no-such-model")


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA device")
def test_cuda_agrees_with_the_cpu(run, explainer):
    images = [photo(seed) for seed in range(2)]
    there = Explainer(run, device="cuda")(images, 3)
    for here, each in zip(explainer(images, 3), there, strict=True):
        np.testing.assert_allclose(here.heat, each.heat, atol=1e-2)


def test_stage_and_method_of_one_call(networks, tmp_path):
    path = save_network(networks["res2net20_cifar"], tmp_path / "run" / "last.ckpt")
    explainer = Explainer(path, device="cpu")
    assert explainer.stages == 3
    for stage, method in ((1, "gradcam++"), (3, "gradcam")):
        (each,) = explainer(photo(2), 4, stage=stage, method=method)
        (opened,) = Explainer(path, device="cpu", stage=stage, method=method)(photo(2), 4)
        np.testing.assert_allclose(each.heat, opened.heat, atol=1e-6)
        assert each.score == each.scores[4]
    predicted = Predictor(path, device="cpu")(photo(2), topk=10)
    scores = sorted(each.scores.tolist(), reverse=True)
    assert scores == pytest.approx([score for _, score in predicted.topk], abs=1e-5)
    with pytest.raises(InputError, match="stage 4: "):
        explainer(photo(2), stage=4)
    with pytest.raises(InputError, match="method 'x'"):
        explainer(photo(2), method="x")
