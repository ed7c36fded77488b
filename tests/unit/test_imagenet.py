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


def test_the_devkits_ids_are_another_order() -> None:
    ids = imagenet.ilsvrc2012_ids()
    assert sorted(ids) == list(range(1, 1001))
    assert sorted(ids.values()) == list(imagenet.class_names())
    assert (ids[1], ids[1000]) == ("n02119789", "n03255030")
    # the first ten validation images: in the devkit's ground truth, and in Caffe's val.txt
    devkit = [490, 361, 171, 822, 297, 482, 13, 704, 599, 164]
    caffe = [65, 970, 230, 809, 516, 57, 334, 415, 674, 332]
    order = list(imagenet.class_names())
    assert [order.index(ids[number]) for number in devkit] == caffe


def test_readable_leaves_other_names_alone() -> None:
    assert imagenet.readable(["n02119789", "cat"]) == ("kit fox", "cat")
