"""Library calls on a real GPU: in the runner's memory and stream, captured with the kernels, in the precision allowed."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

import pytest
import torch

from tests.gpu.bench import GPUS, assert_works, compiled, judge_for, needs_gpu
from tests.judge.bench import builder
from tests.judge.kernels import LINEAR, candidate_of, task_of
from tests.judge.test_library import ADD, ALONE, BEFORE_KERNEL
from warpsmith.device.cuda.device import CudaDevice
from warpsmith.judge import Judge
from warpsmith.program import bind, parse_plan
from warpsmith.records import Execution, TensorSpec, Tolerance

pytestmark = needs_gpu


def spec(name: str, tensor: torch.Tensor) -> TensorSpec:
    return TensorSpec(name, tuple(tensor.shape), str(tensor.dtype).removeprefix("torch."))


def run(
    device: CudaDevice,
    text: str,
    inputs: dict[str, torch.Tensor],
    out: TensorSpec,
    *,
    source: str = "\n",
    policy: Tolerance | None = None,
    fill: int = 1,
) -> Execution:
    specs = [spec(name, value) for name, value in inputs.items()]
    tensors = {each.name: each for each in (*specs, out)}
    plan = bind(parse_plan(text), tensors, {}, device.spec, policy)
    there = {name: value.to(device.where) for name, value in inputs.items()}
    return device.run(compiled(device, source), plan, there, [out], fill=fill)


def normal(*shape: int, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(sum(shape))).to(dtype)


def call(op: str, args: Sequence[str], options: str = "") -> str:
    names = ", ".join(f'"{name}"' for name in args)
    return f'[[call]]\nop = "{op}"\nargs = [{names}]\nout = "out"\n' + (
        f"options = {{ {options} }}\n" if options else ""
    )


def assert_near(execution: Execution, due: torch.Tensor, most: float) -> None:
    """Right within a share of the largest element, and nothing else was touched."""
    assert execution.findings == () and execution.overwritten == () and execution.trampled == ()
    got = execution.outputs["out"].cpu().double()
    assert (got - due).abs().max() <= most * due.abs().max()


# ------------------------------------------------------------------------------------------------------------ computing


@pytest.mark.parametrize(
    ("dtype", "most"),
    [(torch.float64, 1e-13), (torch.float32, 2e-6), (torch.float16, 2e-3), (torch.bfloat16, 2e-2)],
)
def test_matrix_products_in_every_dtype(device: CudaDevice, dtype: torch.dtype, most: float) -> None:
    a, b, c = normal(70, 130, dtype=dtype), normal(130, 50, dtype=dtype), normal(50, dtype=dtype)
    out = TensorSpec("out", (70, 50), str(dtype).removeprefix("torch."))
    due = a.double() @ b.double()
    assert_near(run(device, call("aten.mm", "ab"), {"a": a, "b": b}, out), due, most)
    assert_near(run(device, call("aten.addmm", "cab"), {"a": a, "b": b, "c": c}, out), due + c.double(), most)
    a, b = normal(3, 70, 130, dtype=dtype), normal(3, 130, 50, dtype=dtype)
    out, due = replace(out, shape=(3, 70, 50)), a.double() @ b.double()
    assert_near(run(device, call("aten.bmm", "ab"), {"a": a, "b": b}, out), due, most)
    assert_near(run(device, call("aten.baddbmm", "cab"), {"a": a, "b": b, "c": c}, out), due + c.double(), most)


@pytest.mark.parametrize(
    ("image", "weight", "options", "arguments"),
    [
        ((2, 8, 19, 18), (16, 8, 3, 3), "stride = 2, padding = 1", ((2, 2), (1, 1), (1, 1), False, (0, 0), 1)),
        ((2, 8, 9, 8, 7), (4, 8, 3, 2, 3), "padding = 1", ((1,) * 3, (1,) * 3, (1,) * 3, False, (0,) * 3, 1)),
        ((2, 8, 30), (4, 8, 3), "dilation = 2", ((1,), (0,), (2,), False, (0,), 1)),
        ((2, 8, 9, 8), (8, 1, 3, 3), "groups = 8", ((1, 1), (0, 0), (1, 1), False, (0, 0), 8)),
        ((2, 8, 9, 8), (8, 4, 3, 3), "transposed = 1, stride = 2, output_padding = 1",
         ((2, 2), (0, 0), (1, 1), True, (1, 1), 1)),
    ],
    ids=["two dimensions", "three dimensions", "one dimension", "depthwise", "transposed"],
)  # fmt: skip
def test_convolutions(
    device: CudaDevice, image: tuple[int, ...], weight: tuple[int, ...], options: str, arguments: tuple  # type: ignore[type-arg]
) -> None:  # fmt: skip
    """Among them one that cuDNN writes in place, with and without a bias, and ones that PyTorch chooses a kernel for."""
    x, w = normal(*image), normal(*weight)
    b = normal(weight[1] if arguments[3] else weight[0])
    exact = Tolerance(conv_tf32=False)
    due = torch.ops.aten.convolution(x.double(), w.double(), b.double(), *arguments)
    out = TensorSpec("out", tuple(due.shape), "float32")
    text = call("aten.convolution", "xwb", options)
    assert_near(run(device, text, {"x": x, "w": w, "b": b}, out, policy=exact), due, 5e-6)
    bare = due - b.double().view(-1, *[1] * (len(image) - 2))
    text = call("aten.convolution", "xw", options)
    assert_near(run(device, text, {"x": x, "w": w}, out, policy=exact), bare, 5e-6)


def test_precision_is_what_the_task_allows(device: CudaDevice) -> None:
    """Odd 12-bit integers against zeros and ones are exact in float32 and not in TF32."""
    generator = torch.Generator().manual_seed(3)
    a = torch.randint(1024, 2048, (256, 512), generator=generator).float() * 2 + 1
    b = torch.randint(0, 2, (512, 256), generator=generator).float()
    out, due = TensorSpec("out", (256, 256), "float32"), (a.double() @ b.double())
    strict = run(device, call("aten.mm", "ab"), {"a": a, "b": b}, out).outputs["out"].cpu().double()
    assert torch.equal(strict, due)
    loose = run(device, call("aten.mm", "ab"), {"a": a, "b": b}, out, policy=Tolerance(matmul_tf32=True))
    assert not torch.equal(loose.outputs["out"].cpu().double(), due)
    again = run(device, call("aten.mm", "ab"), {"a": a, "b": b}, out, fill=2).outputs["out"].cpu().double()
    assert torch.equal(again, due), "a call before left its precision behind"


def test_calls_and_launches_share_memory_in_their_order(device: CudaDevice) -> None:
    x, weight, bias = normal(46, 192), normal(24, 192), normal(24)
    out, inputs = TensorSpec("out", (46, 24), "float32"), {"x": x, "weight": weight, "bias": bias}
    due = x.double() @ weight.double().T + bias.double()
    assert_near(run(device, BEFORE_KERNEL, inputs, out, source=ADD), due, 2e-6)
    late = run(device, BEFORE_KERNEL.replace('"aten.mm"', '"aten.mm"\nafter = 1'), inputs, out, source=ADD)
    assert late.outputs["out"].isnan().all(), "the kernel ran after the call, not before it"


def test_a_faulty_kernel_before_a_call_is_named_for_what_it_did(device: CudaDevice) -> None:
    """PyTorch meets the fault first, as an error of its own."""
    source = 'extern "C" __global__ void wild(float* out) { out[1LL << 40] = 1.0f; }\n'
    text = '[[launch]]\nkernel = "wild"\ngrid = [1]\nblock = [1]\nargs = ["out"]\n' + call("aten.mm", "ab")
    text = text.replace("[[call]]", "[[call]]\nafter = 1")
    execution = run(
        device, text, {"a": normal(8, 8), "b": normal(8, 8)}, TensorSpec("out", (8, 8), "float32"), source=source
    )
    assert [finding.kind for finding in execution.findings] == ["out_of_bounds"]
    assert_works(device)


@pytest.fixture
def by_bytes() -> Iterator[CudaDevice]:
    """A device that copies memory instead of mapping it."""
    made = CudaDevice(GPUS[0], builder(), share=False, spare=False)
    yield made
    made.close()


def test_memory_that_is_copied_serves_as_well(by_bytes: CudaDevice) -> None:
    a, b = normal(70, 130), normal(130, 50)
    execution = run(by_bytes, call("aten.mm", "ab"), {"a": a, "b": b}, TensorSpec("out", (70, 50), "float32"))
    assert_near(execution, a.double() @ b.double(), 2e-6)


# -------------------------------------------------------------------------------------------------------------- judging


def test_the_judge_times_hybrid_programs_and_says_what_the_library_takes() -> None:
    task = task_of(LINEAR)
    alone = judge_for(task).judge(candidate_of(LINEAR, "\n", ALONE))
    assert alone.failure is None, alone.failure
    assert alone.timing is not None and alone.timing.source == "measured"
    mixed = judge_for(task).judge(candidate_of(LINEAR, ADD, BEFORE_KERNEL))
    assert mixed.failure is None, mixed.failure
    if "activity" in dict(alone.timing.clocks_of):
        assert alone.library_share == 1.0 and alone.profile is not None
        assert mixed.library_share is not None and 0.0 < mixed.library_share < 1.0


def test_a_thorough_look_at_a_hybrid_program_does_not_blame_it_for_the_library(device: CudaDevice) -> None:
    judge = Judge(task_of(LINEAR), device, builder(), thorough=True)
    verdict = judge.judge(candidate_of(LINEAR, ADD, BEFORE_KERNEL))
    assert verdict.failure is None, verdict.failure


def test_captured_calls_work_on_their_own_slots(device: CudaDevice) -> None:
    """A series of many slots, replayed twice: every output belongs to its own inputs."""
    task, candidate = task_of(LINEAR), candidate_of(LINEAR, ADD, BEFORE_KERNEL)
    specs = {each.name: each for each in (*task.graph.arguments, *task.graph.results)}
    plan = bind(candidate.program.plan, specs, {}, device.spec)
    build = builder().build(candidate.program, {}, device.architecture)
    generator = torch.Generator(device.where).manual_seed(1)
    pool = {
        each.name: torch.randn(5, *each.shape, generator=generator, device=device.where)
        for each in task.graph.arguments
    }
    with device.exclusive():
        series = device.series(build, plan, task.graph.arguments, task.graph.results, 3)
        for fill in (1, 2):
            members = torch.arange(series.slots, device=device.where).add_(fill).remainder_(5)
            series.refill(pool, members, fill)
            series.replay(1.0)
            conduct = series.conduct(pool, members)
            assert conduct.overwritten == () and conduct.trampled == () and conduct.kept == ()
            out = series.output("out").double()
            for slot in series.order[:20]:
                x, weight, bias = (pool[name][members[slot]].double() for name in ("x", "weight", "bias"))
                due = x @ weight.T + bias
                assert (out[slot] - due).abs().max() <= 2e-6 * due.abs().max()
