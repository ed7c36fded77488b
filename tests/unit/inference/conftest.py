import pytest

from samples import save_network, small_network


@pytest.fixture(scope="session")
def network():
    return small_network()


@pytest.fixture(scope="session")
def run(network, tmp_path_factory):
    """A run directory."""
    folder = tmp_path_factory.mktemp("runs") / "mine"
    save_network(network, folder / "last.ckpt")
    return folder
