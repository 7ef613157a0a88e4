"""The CUDA driver's calls, checked. Importing this does not start the driver."""

from __future__ import annotations

from typing import Any

from cuda.bindings import driver as cu


class DriverError(Exception):
    """The driver refused or failed; `name` is that of the error, such as `CUDA_ERROR_ILLEGAL_ADDRESS`."""

    def __init__(self, name: str, call: str) -> None:
        super().__init__(f"{call}: {name}")
        self.name = name


def checked(result: tuple[Any, ...], call: str = "driver") -> Any:
    """Return what a driver call gives back, without its status. Raises DriverError."""
    status, *rest = result
    if status != cu.CUresult.CUDA_SUCCESS:
        raise DriverError(getattr(status, "name", str(status)), call)
    if not rest:
        return None
    return rest[0] if len(rest) == 1 else tuple(rest)


def start(ordinal: int) -> Any:
    """Start the driver and make the primary context of a GPU current. Returns the device."""
    checked(cu.cuInit(0), "cuInit")
    device = checked(cu.cuDeviceGet(ordinal), "cuDeviceGet")
    context = checked(cu.cuDevicePrimaryCtxRetain(device), "cuDevicePrimaryCtxRetain")
    checked(cu.cuCtxSetCurrent(context), "cuCtxSetCurrent")
    return device
