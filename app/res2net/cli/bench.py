"""`res2net bench`: verbs that measure, each a file of its own, `bench_<verb>.py`."""

VERBS: dict[str, str] = {
    "loader": "images/s of the training loader, the DALI pipeline in it and torchvision's",
}
