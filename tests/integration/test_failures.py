"""What goes wrong in the midst of training ends in one line: what was kept, what to do next."""

from pathlib import Path

import pytest
import torch

from res2net.cli.main import main
from res2net.training.classifier import ImageClassifier
from res2net.training.run import KEPT

pytestmark = pytest.mark.usefixtures("undrawn")

SETTINGS = ("quickstart", "data.subset=0.5", "trainer.max_epochs=2")


def failing(error: Exception, *, at: int) -> object:
    """A training step that fails at a batch of the second epoch."""
    step = ImageClassifier.training_step

    def fail(self: ImageClassifier, batch: object, batch_idx: int) -> object:
        if self.trainer.current_epoch == 1 and batch_idx == at:
            raise error
        return step(self, batch, batch_idx)  # type: ignore[arg-type]

    return fail


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (
            torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has"),
            "out of memory with 64 images per device at once (asked for 2.00 GiB), "
            "trainer.accumulate=1, trainer.precision=32-true; try trainer.accumulate=2",
        ),
        (
            type("InductorError", (RuntimeError,), {"__module__": "torch._inductor.exc"})("no c++"),
            "torch.compile failed, as without a C++ compiler: no c++",
        ),
    ],
)
def test_one_line_and_the_last_state(
    error: Exception,
    words: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr(ImageClassifier, "training_step", failing(error, at=3))
        assert main(["train", *SETTINGS]) == 1
    (line,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error")]
    assert words in line
    if isinstance(error, torch.OutOfMemoryError):
        assert line.endswith(KEPT)
    assert main(["train", *SETTINGS, "run.resume=auto"]) == 0
    assert "step 22/22" in capsys.readouterr().err
