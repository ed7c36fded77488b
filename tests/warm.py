"""What `ranks` has imported and done before it forks: DALI's transformation of graphs into code."""

# ruff: noqa: F401
import sklearn.datasets  # which the digits come from
import wandb.sdk.launch.inputs.internal  # with all that a run of it imports

import res2net.cli.train
import res2net.training.run
from res2net.data.augmentation import Augmentation
from res2net.data.dali.graph import Work, build_pipeline
from res2net.preprocessing import Preprocessing

for policy in ("rand_augment", "trivial_augment"):
    build_pipeline(
        Work("paths", Preprocessing(32), Augmentation(policy=policy, start_size=16), 1000),
        lambda info: (),
        batch_size=4,
        threads=1,
        device_id=None,
        seed=0,
        prefetch=2,
        checkpoint=None,
    )
