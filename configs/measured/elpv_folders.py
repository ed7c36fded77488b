"""The solar cells of the package `elpv-dataset` as folders: python elpv_folders.py ROOT

2,624 photographs of 300 x 300 pixels (Deitsch et al., arXiv 1807.02894; non-commercial licence).
ROOT/train and ROOT/test hold the folders defective (probability 0.5 or more) and intact; a quarter
of each class and kind of cell is for testing.
"""

import sys
from pathlib import Path

import numpy as np
from elpv_dataset.utils import load_dataset
from PIL import Image

from res2net.data.sources.split import stratified_split

root = Path(sys.argv[1])
images, probabilities, kinds = load_dataset()
defective = probabilities >= 0.5
_, testing = stratified_split(2 * defective + (kinds == "mono"), 0.25, seed=0)
for index, image in enumerate(images):
    split = "test" if np.isin(index, testing) else "train"
    folder = root / split / ("defective" if defective[index] else "intact")
    folder.mkdir(parents=True, exist_ok=True)
    Image.fromarray(image).save(folder / f"{index:04d}-{kinds[index]}.png")
