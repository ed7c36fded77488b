import pytest
import torch

from res2net.export.source import open_source
from samples import save_network, small_network


@pytest.fixture(scope="session", autouse=True)
def one_thread():
    """On a busy machine the threads of one small convolution wait for each other for a second."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="session")
def network():
    return small_network()


@pytest.fixture(scope="session")
def run(network, tmp_path_factory):
    """A run directory."""
    folder = tmp_path_factory.mktemp("runs") / "mine"
    save_network(network, folder / "last.ckpt")
    return folder


@pytest.fixture(scope="session")
def source(run):
    return open_source(run)
