"""PaddleClas's networks for ImageNet, whose blocks compute something else than the authors'.

A first block that keeps the size adds its chunks up and passes the last one on, as all later ones
do (the authors' averages it and adds nothing), and an average over the border leaves its zeros out
of account. No tensor shows either. Sources: PaddleClas, `res2net.py` and `res2net_vd.py` of its
model zoo; the accuracies are those of its own tables.
"""

from res2net.models.variant import Variant

PADDLE = (
    Variant(
        name="res2net50_26w_4s_paddle",
        stage_depths=(3, 4, 6, 3),
        base_width=26,
        scale=4,
        stride_1_first_as_normal=True,
        pool_count_include_pad=False,
        parameters=25_699_120,
        macs=4_255_166_464,
        top1=79.33,
        top5=94.57,
        measured_by="PaddleClas",
    ),
    Variant(
        name="res2net50_14w_8s_paddle",
        stage_depths=(3, 4, 6, 3),
        base_width=14,
        scale=8,
        stride_1_first_as_normal=True,
        pool_count_include_pad=False,
        parameters=25_059_816,
        macs=4_178_898_944,
        top1=79.46,
        top5=94.70,
        measured_by="PaddleClas",
    ),
    # `vd` is what the authors call v1b: three convolutions in the stem, shortcuts that average.
    Variant(
        name="res2net50_vd_26w_4s",
        stage_depths=(3, 4, 6, 3),
        base_width=26,
        scale=4,
        stem="deep",
        avg_down=True,
        stride_1_first_as_normal=True,
        pool_count_include_pad=False,
        parameters=25_718_352,
        macs=4_494_807_040,
        top1=83.1,
        top5=96.6,
        measured_by="PaddleClas (SSLD)",
    ),
    Variant(
        name="res2net101_vd_26w_4s",
        stage_depths=(3, 4, 23, 3),
        base_width=26,
        scale=4,
        stem="deep",
        avg_down=True,
        stride_1_first_as_normal=True,
        pool_count_include_pad=False,
        parameters=45_225_920,
        macs=8_306_615_040,
        top1=83.9,
        top5=97.1,
        measured_by="PaddleClas (SSLD)",
    ),
    Variant(
        name="res2net200_vd_26w_4s",
        stage_depths=(3, 12, 48, 3),
        base_width=26,
        scale=4,
        stem="deep",
        avg_down=True,
        stride_1_first_as_normal=True,
        pool_count_include_pad=False,
        parameters=76_215_536,
        macs=15_706_007_040,
        top1=85.13,
        top5=97.42,
        measured_by="PaddleClas (SSLD)",
    ),
)
