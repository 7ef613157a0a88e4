"""The runner: the one process in which candidate code runs. It holds inputs, outputs, cubin and plan, and no answer.

    python -m warpsmith.device.cuda.runner ORDINAL READ WRITE

It allocates the arena, lets its parent map it, loads a cubin, launches the plan on a slot or replays a captured series
of slots, and says how long that took by events on the stream. Every error of the driver is an answer; after one that
spoils the context the parent ends the process. It imports neither PyTorch nor NumPy, so that a fresh one is ready in a
quarter of a second; only a plan with library calls makes it load PyTorch.
"""

from __future__ import annotations

import ctypes
import signal
import sys
from collections.abc import Callable
from typing import Any, Protocol

from cuda.bindings import driver as cu

from warpsmith import wire
from warpsmith.device.cuda.driver import DriverError, checked, start

_OPT_IN = 48 * 1024
"""Bytes of shared memory, static and dynamic, beyond which a kernel must be told that it may have so much."""
_HEAP = 1 << 20
_PR_SET_PDEATHSIG = 1
"""linux/prctl.h: a runner that waits for an endless kernel would not notice that nobody waits for it any more."""
_LARGEST_READ = 1 << 30

Answer = tuple[dict[str, Any], tuple[bytes, ...]]


class Kernel:
    """One launch of the plan, with its arguments for each slot."""

    def __init__(self, module: Any, launch: dict[str, Any], address: Callable[[int], int], base: int, stride: int):
        self.name = launch["kernel"]
        self._function = checked(cu.cuModuleGetFunction(module, self.name.encode()), "cuModuleGetFunction")
        self._allow(launch["shared"])
        self._launch, self._address, self._base, self._stride = launch, address, base, stride
        self._arguments: dict[int, Any] = {}

    def _allow(self, shared: int) -> None:
        """Let the kernel have so many bytes of dynamic shared memory, or as many as another launch of it has."""
        known = cu.CUfunction_attribute
        static, most = (
            checked(cu.cuFuncGetAttribute(attribute, self._function), "cuFuncGetAttribute")
            for attribute in (
                known.CU_FUNC_ATTRIBUTE_SHARED_SIZE_BYTES,
                known.CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES,
            )
        )
        if shared and static + shared > _OPT_IN:
            attribute = known.CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES
            checked(cu.cuFuncSetAttribute(self._function, attribute, max(shared, most)), "cuFuncSetAttribute")

    def launch(self, stream: Any, slot: int) -> None:
        """Launch on a slot. Raises DriverError."""
        checked(cu.cuLaunchKernelEx(self._config(stream), self._function, self._parameters(slot), 0), self.name)

    def _config(self, stream: Any) -> Any:
        launch, config = self._launch, cu.CUlaunchConfig()
        config.gridDimX, config.gridDimY, config.gridDimZ = launch["grid"]
        config.blockDimX, config.blockDimY, config.blockDimZ = launch["block"]
        config.sharedMemBytes = launch["shared"]
        config.hStream = stream
        attributes = []
        if tuple(launch["cluster"]) != (1, 1, 1):
            attribute = cu.CUlaunchAttribute()
            attribute.id = cu.CUlaunchAttributeID.CU_LAUNCH_ATTRIBUTE_CLUSTER_DIMENSION
            attribute.value.clusterDim.x, attribute.value.clusterDim.y, attribute.value.clusterDim.z = launch["cluster"]
            attributes.append(attribute)
        if launch["cooperative"]:
            attribute = cu.CUlaunchAttribute()
            attribute.id = cu.CUlaunchAttributeID.CU_LAUNCH_ATTRIBUTE_COOPERATIVE
            attribute.value.cooperative = 1
            attributes.append(attribute)
        if launch["overlap"]:
            # A capture keeps it: the edge from the kernel before becomes a programmatic one.
            attribute = cu.CUlaunchAttribute()
            attribute.id = cu.CUlaunchAttributeID.CU_LAUNCH_ATTRIBUTE_PROGRAMMATIC_STREAM_SERIALIZATION
            attribute.value.programmaticStreamSerializationAllowed = 1
            attributes.append(attribute)
        config.attrs, config.numAttrs = attributes, len(attributes)
        return config

    def _parameters(self, slot: int) -> int:
        """The address of the array of pointers that the driver takes; it lives as long as this object."""
        if slot not in self._arguments:
            values = [self._value(argument, slot) for argument in self._launch["args"]]
            pointers = (ctypes.c_void_p * max(1, len(values)))(*(ctypes.addressof(value) for value in values))
            self._arguments[slot] = (pointers, values)
        return ctypes.addressof(self._arguments[slot][0])

    def _value(self, argument: list[Any], slot: int) -> Any:
        kind, content = argument
        if kind == "at":
            return ctypes.c_uint64(self._address(self._base + slot * self._stride + content))
        data = bytes.fromhex(content)
        return (ctypes.c_uint8 * 8)(*data.ljust(8, b"\0"))


class Step(Protocol):
    """What a plan does one after the other: kernels of its own, and library calls."""

    name: str

    def launch(self, stream: Any, slot: int) -> None:
        """Put the work on a stream. Raises DriverError."""
        ...


class Runner:
    """What is allocated and loaded at the moment."""

    def __init__(self, ordinal: int) -> None:
        self.ordinal = ordinal
        self.device = start(ordinal)
        checked(cu.cuCtxSetLimit(cu.CUlimit.CU_LIMIT_MALLOC_HEAP_SIZE, _HEAP), "cuCtxSetLimit")
        # What stays in L2 from call to call would make a candidate look faster than it is.
        _ = cu.cuCtxSetLimit(cu.CUlimit.CU_LIMIT_PERSISTING_L2_CACHE_SIZE, 0)
        self.stream = checked(cu.cuStreamCreate(cu.CUstream_flags.CU_STREAM_NON_BLOCKING), "cuStreamCreate")
        self.before, self.after = (checked(cu.cuEventCreate(0), "cuEventCreate") for _ in range(2))
        self.arena = 0
        self.spread: dict[int, int] = {}
        self.module: Any = None
        self.steps: list[Step] = []
        self.variables: list[tuple[str, int, bytes]] = []
        self.graph: Any = None
        self.calls = 0
        self.reader: Any = None
        self.flush: tuple[int, int] = (0, 0)

    # -- memory

    def do_arena(self, message: wire.Message, _: list[bytes]) -> Answer:
        """Allocate the arena anew; answer with a handle by which the parent can map it, where there is one.

        With `places`, pairs of offset and size, each gets an allocation of its own instead: a sanitizer then sees
        where one buffer ends. Reads and writes must begin at one of those offsets.
        """
        self._unload()
        for address in self.spread.values():
            checked(cu.cuMemFree(address), "cuMemFree")
        self.spread = {}
        if self.arena:
            checked(cu.cuMemFree(self.arena), "cuMemFree")
            self.arena = 0
        if message["places"]:
            for start, nbytes in message["places"]:
                self.spread[start] = int(checked(cu.cuMemAlloc(max(1, nbytes)), "cuMemAlloc"))
            return {"shared": False}, ()
        self.arena = int(checked(cu.cuMemAlloc(message["bytes"]), "cuMemAlloc"))
        status, handle = cu.cuIpcGetMemHandle(self.arena)
        if status != cu.CUresult.CUDA_SUCCESS or not message["share"]:
            return {"shared": False}, ()
        return {"shared": True}, (bytes(handle.reserved),)

    def do_equip(self, _: wire.Message, blobs: list[bytes]) -> Answer:
        """Load our own kernels: `read_through`, with which the caches are flushed."""
        module = checked(cu.cuModuleLoadData(blobs[0]), "cuModuleLoadData")
        self.reader = checked(cu.cuModuleGetFunction(module, b"read_through"), "cuModuleGetFunction")
        return {}, ()

    def do_write(self, message: wire.Message, blobs: list[bytes]) -> Answer:
        """Copy bytes into the arena."""
        checked(cu.cuMemcpyHtoD(self._address(message["at"]), blobs[0], len(blobs[0])), "cuMemcpyHtoD")
        return {}, ()

    def do_read(self, message: wire.Message, _: list[bytes]) -> Answer:
        """Copy bytes out of the arena."""
        data = bytearray(min(message["bytes"], _LARGEST_READ))
        checked(cu.cuMemcpyDtoH(data, self._address(message["at"]), len(data)), "cuMemcpyDtoH")
        return {}, (bytes(data),)

    # -- programs

    def do_load(self, message: wire.Message, blobs: list[bytes]) -> Answer:
        """Load a cubin and prepare the launches of its plan, and its library calls, each of which is made once."""
        self._unload()
        self.module = checked(cu.cuModuleLoadData(blobs[0]), "cuModuleLoadData")
        base, stride = message["base"], message["stride"]
        self.steps = [Kernel(self.module, launch, self._address, base, stride) for launch in message["launches"]]
        self._load_calls(message["calls"], base, stride)
        hidden = []
        for name in message["variables"]:
            status, address, size = cu.cuModuleGetGlobal(self.module, name.encode())
            if status == cu.CUresult.CUDA_SUCCESS:
                self.variables.append((name, int(address), self._content(int(address), size)))
            else:
                hidden.append(name)
        return {"hidden": hidden}, ()

    def do_call(self, message: wire.Message, _: list[bytes]) -> Answer:
        """Run the plan once on a slot."""
        checked(cu.cuEventRecord(self.before, self.stream), "cuEventRecord")
        self._launch(message["slot"])
        checked(cu.cuEventRecord(self.after, self.stream), "cuEventRecord")
        checked(cu.cuStreamSynchronize(self.stream), "cuStreamSynchronize")
        return {"seconds": self._elapsed(), "kept": self._changed()}, ()

    def do_capture(self, message: wire.Message, _: list[bytes]) -> Answer:
        """Capture calls on the slots of a list, in its order, as one graph."""
        self._drop_graph()
        mode = cu.CUstreamCaptureMode.CU_STREAM_CAPTURE_MODE_THREAD_LOCAL
        checked(cu.cuStreamBeginCapture(self.stream, mode), "cuStreamBeginCapture")
        try:
            for slot in message["order"]:
                self._launch(slot)
        finally:
            captured = checked(cu.cuStreamEndCapture(self.stream), "cuStreamEndCapture")
        try:
            self.graph = checked(cu.cuGraphInstantiate(captured, 0), "cuGraphInstantiate")
        finally:
            checked(cu.cuGraphDestroy(captured), "cuGraphDestroy")
        checked(cu.cuGraphUpload(self.graph, self.stream), "cuGraphUpload")
        checked(cu.cuStreamSynchronize(self.stream), "cuStreamSynchronize")
        self.calls = len(message["order"])
        return {"calls": self.calls}, ()

    def do_replay(self, message: wire.Message, _: list[bytes]) -> Answer:
        """Flush the caches, then replay the captured series some times; the time of one series by events."""
        if message.get("flush"):
            self._flush(message["flush"])
        times = message.get("times", 1)
        checked(cu.cuEventRecord(self.before, self.stream), "cuEventRecord")
        for _replay in range(times):
            checked(cu.cuGraphLaunch(self.graph, self.stream), "cuGraphLaunch")
        checked(cu.cuEventRecord(self.after, self.stream), "cuEventRecord")
        checked(cu.cuStreamSynchronize(self.stream), "cuStreamSynchronize")
        return {"seconds": self._elapsed() / times, "kept": self._changed()}, ()

    def do_activity(self, message: wire.Message, _: list[bytes]) -> Answer:
        """Replay once and answer with the spans in which the device was at work, in ns, as CUPTI saw them.

        `library` holds those among them that are not of the program's own kernels.
        """
        from warpsmith.device.cuda.cupti import Activity, CuptiError, available

        if not available():
            return {"spans": None}, ()
        if message.get("flush"):
            self._flush(message["flush"])
        try:
            activity = Activity()
            activity.start()
            checked(cu.cuGraphLaunch(self.graph, self.stream), "cuGraphLaunch")
            checked(cu.cuStreamSynchronize(self.stream), "cuStreamSynchronize")
            activity.stop()
            activity.close()
        except CuptiError as error:
            return {"spans": None, "problem": str(error)}, ()
        own = {step.name for step in self.steps if isinstance(step, Kernel)}
        library = [[event.start, event.end] for event in activity.events() if event.name not in own]
        return {"spans": [list(span) for span in activity.spans()], "library": library}, ()

    def do_profile(self, message: wire.Message, _: list[bytes]) -> Answer:
        """Tell a profiler that watches this process where to begin or to end."""
        checked(cu.cuProfilerStart() if message["on"] else cu.cuProfilerStop(), "cuProfiler")
        return {}, ()

    # -- parts

    def _address(self, offset: int) -> int:
        return self.spread[offset] if self.spread else self.arena + offset

    def _load_calls(self, calls: list[dict[str, Any]], base: int, stride: int) -> None:
        """Put library calls among the launches; a call's `after` counts the launches before it."""
        if not calls:
            return
        from warpsmith.device.cuda.library import LibraryCall

        def place(slot: int, start: int) -> int:
            return self._address(base + slot * stride + start)

        # From the last to the first, so that the places of those in front stay as they are.
        for message in reversed(calls):
            call = LibraryCall(message, place, self.ordinal, self.stream)
            call.launch(self.stream, 0)
            self.steps.insert(message["after"], call)
        checked(cu.cuStreamSynchronize(self.stream), "cuStreamSynchronize")

    def _launch(self, slot: int) -> None:
        for step in self.steps:
            step.launch(self.stream, slot)

    def _flush(self, nbytes: int) -> None:
        """Read more than the L2 holds, and give back what was to persist in it.

        Reading leaves clean lines: what a flush has written would have to go to memory while the candidate is timed.
        """
        if self.flush[1] < nbytes:
            if self.flush[0]:
                checked(cu.cuMemFree(self.flush[0]), "cuMemFree")
            self.flush = (int(checked(cu.cuMemAlloc(nbytes), "cuMemAlloc")), nbytes)
            checked(cu.cuMemsetD8Async(self.flush[0], 0xFF, nbytes, self.stream), "cuMemsetD8Async")
        _ = cu.cuCtxResetPersistingL2Cache()
        arguments = ((self.flush[0], nbytes // 16), (ctypes.c_void_p, ctypes.c_int64))
        launch = (self.reader, 1024, 1, 1, 256, 1, 1, 0, self.stream, arguments, 0)
        checked(cu.cuLaunchKernel(*launch), "read_through")
        checked(cu.cuStreamSynchronize(self.stream), "cuStreamSynchronize")

    def _elapsed(self) -> float:
        return float(checked(cu.cuEventElapsedTime(self.before, self.after), "cuEventElapsedTime")) * 1e-3

    def _content(self, address: int, size: int) -> bytes:
        data = bytearray(size)
        checked(cu.cuMemcpyDtoH(data, address, size), "cuMemcpyDtoH")
        return bytes(data)

    def _changed(self) -> list[str]:
        return [name for name, address, first in self.variables if self._content(address, len(first)) != first]

    def _drop_graph(self) -> None:
        if self.graph is not None:
            checked(cu.cuGraphExecDestroy(self.graph), "cuGraphExecDestroy")
            self.graph, self.calls = None, 0

    def _unload(self) -> None:
        self._drop_graph()
        self.steps, self.variables = [], []
        if self.module is not None:
            checked(cu.cuModuleUnload(self.module), "cuModuleUnload")
            self.module = None


def main(ordinal: int, reads: int, writes: int) -> None:
    """Answer messages until the other end closes. Where the parent dies, the kernel ends this process as well."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    try:
        runner = Runner(ordinal)
    except DriverError as error:
        wire.send(writes, {"error": error.name, "call": str(error)})
        return
    wire.send(writes, {"ready": True})
    while True:
        try:
            message, blobs = wire.receive(reads)
        except wire.Closed:
            return
        do: Callable[[wire.Message, list[bytes]], Answer] = getattr(runner, f"do_{message['do']}")
        try:
            answer, data = do(message, blobs)
        except DriverError as error:
            answer, data = {"error": error.name, "call": str(error)}, ()
        wire.send(writes, answer, *data)


if __name__ == "__main__":
    main(*map(int, sys.argv[1:4]))
