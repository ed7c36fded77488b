"""A table of metrics as runs write it: for tests of what reads it."""

from pathlib import Path

from res2net.callbacks.metrics_csv import HEADER


def write_metrics(
    path: Path,
    *,
    epochs: float,
    steps: int = 22,
    top5: bool = True,
    ema: bool = False,
    memory: bool = False,
) -> Path:
    """What a run of so many epochs writes, a row every ten steps."""
    rows = []
    for step in range(1, round(epochs * steps) + 1):
        epoch, done = (step - 1) // steps, step / (epochs * steps)
        if step % 10 == 0:
            values = {"loss": 7 - 5 * done, "top1": done, "lr": 0.1 * (1 - done)}
            values["images_per_second"] = 5000.0
            values |= {"gpu_memory": 11.5} if memory else {}
            rows += [f"{step},{epoch},train,{key},{value!r}" for key, value in values.items()]
        if step % steps == 0:
            values = {"top1": 0.75 * done, "loss": 6.5 - 5 * done}
            values |= {"top5": 0.95 * done} if top5 else {}
            rows += [f"{step},{epoch},val,{key},{value!r}" for key, value in values.items()]
            rows += [f"{step},{epoch},val_ema,top1,{0.8 * done!r}"] if ema else []
            values = {"epoch_loss": 7 - 5 * done, "epoch_top1": 0.7 * done}
            rows += [f"{step},{epoch},train,{key},{value!r}" for key, value in values.items()]
    path.write_text(HEADER + "".join(row + "\n" for row in rows))
    return path
