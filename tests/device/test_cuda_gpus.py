"""What is known of a GPU: limits from the driver, peaks from the catalogue, and which GPU a name means."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, replace

import cuda.bindings.driver as cu
import pytest

from warpsmith.device.catalog import GPUS
from warpsmith.device.cuda import gpus
from warpsmith.device.cuda.gpus import Present, find_gpu, spec_from
from warpsmith.errors import SettingsError

GB = 10**9
H100: Mapping[str, int] = {
    "COMPUTE_CAPABILITY_MAJOR": 9,
    "COMPUTE_CAPABILITY_MINOR": 0,
    "MULTIPROCESSOR_COUNT": 132,
    "L2_CACHE_SIZE": 50 << 20,
    "MAX_SHARED_MEMORY_PER_MULTIPROCESSOR": 233472,
    "MAX_SHARED_MEMORY_PER_BLOCK_OPTIN": 232448,
    "MAX_REGISTERS_PER_MULTIPROCESSOR": 65536,
    "MAX_THREADS_PER_MULTIPROCESSOR": 2048,
    "MAX_BLOCKS_PER_MULTIPROCESSOR": 32,
    "CLOCK_RATE": 1_980_000,
    "MEMORY_CLOCK_RATE": 2_619_000,
    "GLOBAL_MEMORY_BUS_WIDTH": 5120,
}
RTX_5090: Mapping[str, int] = {
    **H100,
    "COMPUTE_CAPABILITY_MAJOR": 12,
    "MULTIPROCESSOR_COUNT": 170,
    "L2_CACHE_SIZE": 96 << 20,
    "MAX_THREADS_PER_MULTIPROCESSOR": 1536,
    "MAX_BLOCKS_PER_MULTIPROCESSOR": 24,
    "CLOCK_RATE": 2_407_000,
    "MEMORY_CLOCK_RATE": 14_001_000,
    "GLOBAL_MEMORY_BUS_WIDTH": 512,
}


def present(name: str, ordinal: int = 0, attributes: Mapping[str, int] = H100) -> Present:
    return Present(ordinal, f"GPU-{ordinal}", name, spec_from(name, 80 * GB, attributes.__getitem__))


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> list[Present]:
    """The GPUs of this machine, to be filled in."""
    here: list[Present] = []
    monkeypatch.setattr(gpus, "present_gpus", lambda: tuple(here))
    return here


def test_limits_come_from_the_driver_and_peaks_from_the_datasheet() -> None:
    attributes = {**H100, "MULTIPROCESSOR_COUNT": 114, "L2_CACHE_SIZE": 48 << 20, "MAX_BLOCKS_PER_MULTIPROCESSOR": 31}
    spec = spec_from("NVIDIA H100 80GB HBM3", 79 * GB, attributes.__getitem__)
    assert (spec.sm_count, spec.l2_bytes, spec.blocks_per_sm) == (114, 48 << 20, 31)
    assert spec.memory_bytes == 79 * GB and spec.compute_capability == (9, 0)
    assert (spec.shared_per_sm, spec.shared_per_block) == (233472, 232448)
    assert (spec.registers_per_sm, spec.threads_per_sm) == (65536, 2048)
    assert spec.half_flops == GPUS["H100"].half_flops and "datasheet" in spec.source and "driver" in spec.source


def test_what_was_measured_is_never_taken_for_an_estimate() -> None:
    assert spec_from("NVIDIA H100 80GB HBM3", 80 * GB, H100.__getitem__).name not in GPUS


@pytest.mark.parametrize(
    ("name", "model"),
    [
        ("NVIDIA H200", "H200"),
        ("NVIDIA A100-SXM4-80GB", "A100"),
        ("NVIDIA L40S", "L40S"),
        ("NVIDIA GeForce RTX 4090", "RTX 4090"),
        ("NVIDIA B200", "B200"),
    ],
)
def test_models_are_known_by_the_drivers_names(name: str, model: str) -> None:
    assert spec_from(name, GB, H100.__getitem__).tf32_flops == GPUS[model].tf32_flops


def test_peaks_of_an_unknown_model_are_derived() -> None:
    spec = spec_from("NVIDIA GeForce RTX 5090", 32 * GB, RTX_5090.__getitem__)
    assert spec.memory_bandwidth == pytest.approx(1.792e12, rel=1e-3), "NVIDIA's own figure is 1792 GB/s"
    assert spec.fp32_flops == pytest.approx(104.8e12, rel=1e-3), "NVIDIA's own figure is 104.8 TFLOPS"
    assert spec.tf32_flops >= spec.fp32_flops and spec.half_flops >= spec.tf32_flops
    assert spec.memory_bytes == 32 * GB and spec.compute_capability == (12, 0) and "derived" in spec.source
    assert all(asdict(spec).values()), "a zero would make a bound infinite"


def test_no_peak_is_below_what_the_hardware_does() -> None:
    attributes = {**H100, "GLOBAL_MEMORY_BUS_WIDTH": 6016}
    spec = spec_from("NVIDIA H100 NVL", 94 * GB, attributes.__getitem__)
    # 3.9 TB/s by its datasheet: with 3.35 the judge takes an honest copy for one that does not do the work.
    assert spec.memory_bandwidth >= 3.9e12


def test_any_gpu_is_the_first_one(machine: list[Present]) -> None:
    assert find_gpu("gpu") is None and find_gpu("auto") is None
    machine += [present("NVIDIA H100 80GB HBM3"), present("NVIDIA H200", 1)]
    assert all(find_gpu(name) == machine[0] for name in ("gpu", "GPU", "cuda", "auto"))


def test_a_gpu_is_found_by_model_and_by_the_drivers_name(machine: list[Present]) -> None:
    machine += [present("NVIDIA H100 80GB HBM3"), present("NVIDIA H200", 1), present("NVIDIA H200", 2)]
    assert find_gpu("h200") == machine[1] and find_gpu("NVIDIA H100") == machine[0]
    assert find_gpu("nvidia h100 80gb hbm3") == machine[0]
    assert find_gpu("A100") is None, "a model of the catalogue that is not here can be simulated"


def test_a_gpu_that_the_catalogue_does_not_know_is_found_where_it_is(machine: list[Present]) -> None:
    with pytest.raises(SettingsError, match=r"RTX 5090.*known: H200"):
        find_gpu("NVIDIA GeForce RTX 5090")
    machine.append(present("NVIDIA GeForce RTX 5090", attributes=RTX_5090))
    assert find_gpu("NVIDIA GeForce RTX 5090") == machine[0]
    with pytest.raises(SettingsError):
        find_gpu("RTX 9999")


def test_a_known_model_is_not_taken_for_another_that_begins_alike(machine: list[Present]) -> None:
    machine.append(replace(present("NVIDIA L40"), name="NVIDIA L40"))
    assert find_gpu("L40S") is None
    machine.append(present("NVIDIA H20"))
    assert find_gpu("H200") is None


def test_without_a_driver_there_are_no_gpus_and_no_error(monkeypatch: pytest.MonkeyPatch) -> None:
    def absent(flags: int) -> tuple[object, ...]:
        raise RuntimeError("libcuda.so.1 is not there")

    monkeypatch.setattr(cu, "cuInit", absent)
    assert gpus.present_gpus() == ()
    monkeypatch.setattr(cu, "cuInit", lambda flags: (cu.CUresult.CUDA_ERROR_NO_DEVICE,))
    assert gpus.present_gpus() == ()


def test_the_identity_is_the_one_that_the_drivers_tools_print(monkeypatch: pytest.MonkeyPatch) -> None:
    ok = cu.CUresult.CUDA_SUCCESS

    class Identity:
        bytes = bytes(range(16))

    names = {getattr(cu.CUdevice_attribute, f"CU_DEVICE_ATTRIBUTE_{name}"): value for name, value in H100.items()}
    answers = {
        "cuInit": lambda flags: (ok,),
        "cuDeviceGetCount": lambda: (ok, 2),
        "cuDeviceGet": lambda ordinal: (ok, ordinal),
        "cuDeviceGetName": lambda most, device: (ok, b"NVIDIA H100 80GB HBM3\0\0\0"),
        "cuDeviceGetUuid": lambda device: (ok, Identity),
        "cuDeviceTotalMem": lambda device: (ok, 80 * GB),
        "cuDeviceGetAttribute": lambda attribute, device: (ok, names[attribute]),
    }
    for name, answer in answers.items():
        monkeypatch.setattr(cu, name, answer)
    first, second = gpus.present_gpus()
    assert first.uuid == "GPU-00010203-0405-0607-0809-0a0b0c0d0e0f" and first.name == "NVIDIA H100 80GB HBM3"
    assert (first.ordinal, second.ordinal) == (0, 1) and first.spec.l2_bytes == 50 << 20
