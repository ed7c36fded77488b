"""`res2net bench`: verbs that measure, each a file of its own, `bench_<verb>.py`."""

VERBS: dict[str, str] = {
    "model": "images/s of a variant, of timm's same network and of ResNet-50, pass by pass",
    "train": "steps/s of training as it runs here, against a bare loop and without the loader",
    "suite": "all of BENCHMARKS.md on this machine, in one go",
    "loader": "images/s of the training loader, the DALI pipeline in it and torchvision's",
}
