"""The README's detector on our backbone: exactly those lines run one training step."""

import re
from pathlib import Path

import torch

README = Path(__file__).parents[2] / "README.md"
MARKED = re.compile(r"<!-- backbone -->\s*```python\n(.*?)```", re.DOTALL)


def test_the_lines_of_the_readme_train_a_detector() -> None:
    found = MARKED.search(README.read_text())
    assert found is not None
    torch.manual_seed(0)
    names: dict = {}
    exec(compile(found.group(1), "README.md", "exec"), names)
    losses, backbone = names["losses"], names["detector"].backbone
    assert set(losses) == {
        "loss_classifier",
        "loss_box_reg",
        "loss_objectness",
        "loss_rpn_box_reg",
    }
    assert all(loss.isfinite() for loss in losses.values())
    torch.manual_seed(0)
    fresh = names["create_model"]("res2net50_26w_4s").backbone.state_dict()
    trained = backbone.body.backbone.state_dict()
    moved = [not torch.equal(trained[key], value) for key, value in fresh.items()]
    assert all(moved)  # every weight and statistic of the backbone took part
    maps = backbone.eval()(torch.randn(1, 3, 64, 96))
    assert [tuple(each.shape) for each in maps.values()] == [
        (1, 256, 64 // stride, 96 // stride) for stride in (4, 8, 16, 32)
    ]
