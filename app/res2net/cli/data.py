"""`res2net data`: verbs for data sets, each a file of its own, `data_<verb>.py`."""

VERBS: dict[str, str] = {
    "check": "find broken files, duplicates, leaks and imbalance in a folder of images",
    "download": "fetch CIFAR-10, CIFAR-100 or Imagenette, or unpack an archive of them",
    "shard": "write a data set into a few large files",
}
