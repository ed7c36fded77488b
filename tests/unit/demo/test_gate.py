"""How many are served at a time."""

import pytest

from res2net.demo.gate import Busy, Places


def test_no_address_takes_all_places() -> None:
    places = Places(total=3, each=2)
    with places.take("a"), places.take("a"):
        with pytest.raises(Busy), places.take("a"):
            pass
        with places.take("b"), pytest.raises(Busy), places.take("c"):
            pass
    with places.take("a"), places.take("a"), places.take("c"):
        pass


def test_a_place_is_free_again_after_a_failure() -> None:
    places = Places(total=1, each=1)
    for _ in range(3):
        with pytest.raises(ValueError, match="failed"), places.take("a"):
            raise ValueError("failed")
