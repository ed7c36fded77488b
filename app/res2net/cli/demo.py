"""`res2net demo`: a page in the browser to try networks on images."""

import argparse
import os
from collections.abc import Collection

from res2net.cli.arguments import (
    add_device_argument,
    add_model_arguments,
    add_preprocessing_arguments,
    asked_preprocessing,
    port,
    short_name,
)
from res2net.cli.telling import plain_warnings, say
from res2net.errors import InputError
from res2net.models.variants import find_variant
from res2net.weights.shipped import SHIPPED, no_such_model

PORT = 7860


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_model_arguments(parser, several=True)
    add_device_argument(parser)
    parser.add_argument(
        "--host",
        default="127.0.0.1",
        help="who can open the page: 127.0.0.1, this machine alone (127.0.0.1); another address of "
        "this machine, or 0.0.0.0 for all, everyone who reaches it, without a password",
    )
    parser.add_argument(
        "--port", type=port, default=PORT, metavar="N", help=f"0: a free one ({PORT})"
    )
    add_preprocessing_arguments(parser)


def run(arguments: argparse.Namespace) -> int:
    """Until Ctrl-C or SIGTERM. Raises InputError."""
    from res2net.demo.server import address_of, find_libraries, listen, serve

    models = list(dict.fromkeys(arguments.models or SHIPPED))
    # what can be refused at once, before libraries that take seconds
    for model in models:
        _check_name(model)
    with listen(arguments.host, arguments.port) as listening:
        find_libraries()

        from res2net.inference.cam import Explainer

        explainers: dict[str, Explainer] = {}
        with plain_warnings():
            for model in models:
                explainers[_name(model, explainers)] = Explainer(
                    model,
                    weights=arguments.weights,
                    checkpoint=arguments.checkpoint,
                    device=arguments.device,
                    ema=arguments.ema,
                    preprocessing=asked_preprocessing(arguments),
                )
        url, private = address_of(listening)

        def tell() -> None:
            print(f"{url} (Ctrl-C ends it)", flush=True)
            if not private:
                say("everyone who reaches this address can use it")

        serve(explainers, listening, tell)
    return 0


def _check_name(model: str) -> None:
    """Raises InputError where there is no such path, variant or shipped model."""
    if os.path.exists(model) or model in SHIPPED:
        return
    try:
        find_variant(model)
    except InputError:
        raise no_such_model(model) from None


def _name(model: str, taken: Collection[str]) -> str:
    """Short, because a path says more than those who look at the page need."""
    name = short_name(model)
    number = 1
    while (unique := name if number == 1 else f"{name} ({number})") in taken:
        number += 1
    return unique
