"""One device for all tests on a GPU: what one test breaks the next must not notice."""

from __future__ import annotations

import pytest

from tests.gpu.bench import shared_device
from warpsmith.device.cuda.device import CudaDevice


@pytest.fixture
def device() -> CudaDevice:
    """The GPU of this machine."""
    return shared_device()
