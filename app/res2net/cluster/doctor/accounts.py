"""Whether W&B knows this user."""

from __future__ import annotations

import netrc
import os
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

from res2net.cluster.doctor.check import Check, good_or_warn


def wandb_login() -> Iterator[Check]:
    # Where W&B itself looks; only whether there is something, never what.
    host = urlsplit(os.environ.get("WANDB_BASE_URL") or "https://api.wandb.ai").netloc
    file = Path(os.environ.get("NETRC") or "~/.netrc").expanduser()
    by = "WANDB_API_KEY" if os.environ.get("WANDB_API_KEY") else ""
    try:
        if not by and file.is_file() and netrc.netrc(file).authenticators(host):
            by = str(file)
        value = f"{host}, by {by}" if by else f"not logged in to {host}"
    except (netrc.NetrcParseError, OSError):  # the message may quote a password
        value = f"not logged in to {host}: {file} is malformed or cannot be read"
    advice = "runs are logged offline; `wandb login` sends them"
    yield good_or_warn(bool(by), "wandb login", value, advice)
