"""A name means the GPU of this machine, or a simulated one; and it is always said which."""

from __future__ import annotations

import pytest

from tests.device.test_cuda_gpus import present
from tests.judge.fakes import FakeBuilder
from warpsmith.device.choose import choose
from warpsmith.device.cuda import gpus
from warpsmith.device.cuda.device import CudaDevice
from warpsmith.device.simulator import Simulator
from warpsmith.errors import SettingsError

HERE = present("NVIDIA H100 80GB HBM3")


@pytest.fixture
def without(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gpus, "present_gpus", lambda: ())


@pytest.fixture
def with_h100(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gpus, "present_gpus", lambda: (HERE,))


@pytest.mark.usefixtures("without")
def test_without_a_gpu_times_are_estimated() -> None:
    choice = choose("auto")
    assert not choice.measures and choice.spec.name == "H200"
    device = choice.device(FakeBuilder())  # type: ignore[arg-type]
    assert isinstance(device, Simulator) and device.spec == choice.spec
    assert choose("A100").spec.name == "A100"


@pytest.mark.usefixtures("with_h100")
def test_with_a_gpu_times_are_measured() -> None:
    choice = choose(" Auto ")
    assert choice.measures and choice.present == HERE
    assert choose("H100").present == HERE and choose("gpu").present == HERE
    device = choice.device(FakeBuilder(), shares=4)  # type: ignore[arg-type]
    assert isinstance(device, CudaDevice)
    assert (
        isinstance(device, CudaDevice)
        and device.spec == HERE.spec
        and device.memory_bytes == HERE.spec.memory_bytes // 4
    )
    device.close()


@pytest.mark.usefixtures("with_h100")
def test_a_device_that_nobody_uses_starts_no_process() -> None:
    device = choose("auto").device(FakeBuilder())  # type: ignore[arg-type]
    assert isinstance(device, CudaDevice) and device.runner.pid is None
    device.close()


@pytest.mark.usefixtures("with_h100")
def test_another_model_than_the_one_here_is_simulated() -> None:
    choice = choose("A100")
    assert not choice.measures and choice.spec.name == "A100"


@pytest.mark.usefixtures("with_h100")
def test_the_simulator_can_be_asked_for() -> None:
    assert not choose("H100", simulate=True).measures
    assert choose("auto", simulate=True).spec.name == "H200", "the same on every machine"


@pytest.mark.usefixtures("without")
def test_no_such_model_is_the_callers_fault() -> None:
    for name in ("Voodoo 2", "gpu"):
        with pytest.raises(SettingsError, match="known: H200"):
            choose(name)


def test_what_was_measured_elsewhere_keeps_its_name_and_what_is_asked_for_by_model_does_not() -> None:
    measured = choose("NVIDIA H200")
    assert measured.spec.name == "NVIDIA H200" and measured.spec.sm_count == choose("H200").spec.sm_count
    assert choose("nvidia h200").spec.name == "H200"
    with pytest.raises(SettingsError, match="H2000"):
        choose("H2000")
