"""The shipped classes of ImageNet against two libraries' lists."""

from torchvision.models import ResNet50_Weights

from res2net import imagenet


def test_ids_are_sorted_and_complete_and_names_are_torchvisions() -> None:
    ids, names = zip(*imagenet.class_names().items(), strict=True)
    assert len(ids) == len(set(names)) == imagenet.NUM_CLASSES
    assert list(ids) == sorted(ids)
    assert list(names) == ResNet50_Weights.IMAGENET1K_V2.meta["categories"]


def test_ids_are_those_of_timm() -> None:
    from timm.data import ImageNetInfo

    assert list(imagenet.class_names()) == ImageNetInfo("imagenet-1k").label_names()


def test_readable_leaves_other_names_alone() -> None:
    assert imagenet.readable(["n02119789", "cat"]) == ("kit fox", "cat")
