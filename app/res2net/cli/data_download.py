"""`res2net data download`: a small published data set, ready for training."""

import argparse
from pathlib import Path

from res2net.cli.telling import tell, tell_json
from res2net.data.published import NAMES, fetch


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "name", metavar="NAME", choices=NAMES, help=f"the data set: {', '.join(NAMES)}"
    )
    parser.add_argument(
        "--root", metavar="DIR", help="the folder it comes to, as data.root (data/NAME)"
    )
    parser.add_argument(
        "--archive",
        metavar="FILE",
        help="its published archive, fetched by other means; nothing is downloaded then",
    )
    parser.add_argument("--json", action="store_true", help="print the result as JSON")


def run(arguments: argparse.Namespace) -> int:
    """Raises InputError and WorkError: see `published.fetch`."""
    root = Path(arguments.root or Path("data", arguments.name))
    archive = Path(arguments.archive) if arguments.archive else None
    fetched = fetch(arguments.name, root, archive=archive)
    is_cifar = arguments.name.startswith("cifar")
    source = arguments.name if is_cifar else "folder"
    if arguments.json:
        result = {
            "name": arguments.name,
            "root": str(root),
            "source": source,
            "was_there": fetched.was_there,
        }
        tell_json(result)
    else:
        what = "is there already" if fetched.was_there else "is there now"
        tell(f"{root}: {arguments.name} {what}; train with data.source={source} data.root={root}")
    return 0
