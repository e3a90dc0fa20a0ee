"""A display of one's own, where the machine has what it takes."""

import importlib.util
import shutil

import pytest
from tests.io.screen.xserver import x_client, x_server


@pytest.fixture(scope="module")
def display():
    """Xvfb of 1280×720, in ``DISPLAY``."""
    if shutil.which("Xvfb") is None:
        pytest.skip("needs Xvfb: apt-get install xvfb")
    for module in ("mss", "Xlib"):
        if importlib.util.find_spec(module) is None:
            pytest.skip(f"needs {module}: pip install 'charles[screen]'")
    with x_server(1280, 720) as server:
        yield server


@pytest.fixture
def client(display):
    """Somebody else with windows on that display; they go when the test ends."""
    with x_client() as made:
        yield made
