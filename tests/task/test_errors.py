"""Whatever a user hands over that cannot be used gets one sentence with the file and, where there is one, the line."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from warpsmith.errors import TaskError
from warpsmith.task import load_task, task_from_module

HEAD = "import torch\nfrom torch import nn\n"


def refusal(target: str) -> TaskError:
    with pytest.raises(TaskError) as caught:
        load_task(target)
    assert caught.value.file == target.split(":")[0]
    assert "\n" not in caught.value.message
    return caught.value


def model(forward: str, *, init: str = "pass", inputs: str = "[torch.randn(3, 4)]", signature: str = "x") -> str:
    """Return a file whose forward stands on line 8 and on."""
    body = "\n        ".join(forward.splitlines())
    return (
        f"{HEAD}class Model(nn.Module):\n    def __init__(self):\n        super().__init__()\n        {init}\n"
        f"    def forward(self, {signature}):\n        {body}\n\ndef get_inputs():\n    return {inputs}\n"
    )


def test_missing_file(tmp_path: Path) -> None:
    assert "no such file" in refusal(str(tmp_path / "absent.py")).message


def test_folder_in_place_of_a_file(tmp_path: Path) -> None:
    assert "folder" in refusal(str(tmp_path)).message


def test_file_that_is_not_text(tmp_path: Path) -> None:
    path = tmp_path / "weights.py"
    path.write_bytes(b"\x80\x81\xff")
    assert "UTF-8" in refusal(str(path)).message


def test_syntax_error(write) -> None:
    error = refusal(write("import torch\n\ndef broken(:\n    pass\n"))
    assert error.line == 3
    assert "not valid Python" in error.message
    assert str(error).startswith(f"{error.file}:3: ")


def test_missing_package(write) -> None:
    error = refusal(write("import torch\nimport surely_not_installed_anywhere\n"))
    assert error.line == 2
    assert "'surely_not_installed_anywhere', which is not installed" in error.message


def test_error_while_the_file_runs(write) -> None:
    error = refusal(write("import torch\nx = 1 / 0\n"))
    assert (error.line, "ZeroDivisionError" in error.message) == (2, True)


def test_exit_while_the_file_runs(write) -> None:
    error = refusal(write("import sys\nsys.exit(0)\n"))
    assert (error.line, "SystemExit" in error.message) == (2, True)


def test_no_module_class(write) -> None:
    assert "defines no torch.nn.Module" in refusal(write("import torch\nfrom torch.nn import Module\n")).message


def test_several_modules_are_listed(write) -> None:
    error = refusal(write(f"{HEAD}class A(nn.Module): pass\nclass B(nn.Module): pass\n"))
    assert "(A, B)" in error.message
    assert error.message.endswith(":A")


def test_class_that_does_not_exist(write) -> None:
    error = refusal(write(model("return x")) + ":Other")
    assert "called Other; it defines: Model" in error.message


def test_no_inputs(write) -> None:
    error = refusal(write(f"{HEAD}class Model(nn.Module):\n    def forward(self, x):\n        return x\n"))
    assert "get_inputs()" in error.message


def test_get_inputs_raises(write) -> None:
    error = refusal(write(model("return x", inputs="[torch.randn(3) @ torch.randn(4)]")))
    assert (error.line, "get_inputs() raised RuntimeError" in error.message) == (11, True)


def test_input_that_is_not_a_tensor(write) -> None:
    error = refusal(write(model("return x", inputs="[object()]")))
    assert (error.line, "input x is of type object" in error.message) == (7, True)


def test_inputs_that_are_no_list(write) -> None:
    assert "not int" in refusal(write(model("return x", inputs="3"))).message


def test_inputs_that_do_not_fit_forward(write) -> None:
    error = refusal(write(model("return x", inputs="[torch.randn(3), torch.randn(3)]")))
    assert (error.line, "do not fit forward(x)" in error.message) == (7, True)


def test_complex_input(write) -> None:
    error = refusal(write(model("return x.real", inputs="[torch.randn(3, dtype=torch.complex64)]")))
    assert "torch.complex64" in error.message


def test_complex_intermediate(write) -> None:
    error = refusal(write(model("y = x + 1\nreturn torch.fft.fft(y).real")))
    assert (error.line, "complex64" in error.message) == (9, True)


def test_input_on_another_device(write) -> None:
    error = refusal(write(model("return x", inputs="[torch.randn(3, device='meta')]")))
    assert "is on meta" in error.message


def test_parameter_on_another_device(write) -> None:
    error = refusal(write(model("return x * self.w", init="self.w = nn.Parameter(torch.ones(4, device='meta'))")))
    assert "w is on meta" in error.message


def test_empty_input(write) -> None:
    assert "empty" in refusal(write(model("return x", inputs="[torch.zeros(0, 3)]"))).message


def test_sparse_input(write) -> None:
    assert "layout" in refusal(write(model("return x", inputs="[torch.eye(3).to_sparse()]"))).message


def test_constructor_raises(write) -> None:
    error = refusal(write(model("return x", init="raise ValueError('no heads')")))
    assert (error.line, error.message) == (6, "the constructor of Model raised ValueError: no heads")


def test_constructor_without_its_arguments(write) -> None:
    text = model("return x").replace("def __init__(self):", "def __init__(self, width):")
    assert "missing 1 required positional argument: 'width'" in refusal(write(text)).message


def test_forward_raises(write) -> None:
    error = refusal(write(model("y = x + 1\nreturn y @ y")))
    assert (error.line, "Model.forward raised RuntimeError" in error.message) == (9, True)


def test_forward_raises_in_a_helper_of_the_file(write) -> None:
    text = model("return helper(x)") + "\ndef helper(x):\n    return x.reshape(7)\n"
    assert refusal(write(text)).line == 14


def test_control_flow_on_values(write, capfd) -> None:
    error = refusal(write(model("y = x * 2\nif y.sum() > 0:\n    return y\nreturn -y")))
    assert (error.line, "depends on the values of tensors" in error.message) == (9, True)
    assert capfd.readouterr() == ("", "")


def test_shape_that_depends_on_values(write) -> None:
    error = refusal(write(model("y = x + 1\nreturn y[y > 0]")))
    assert (error.line, "depends on the values" in error.message) == (9, True)


def test_value_read_back(write) -> None:
    error = refusal(write(model("return x * x.max().item()")))
    assert (error.line, "reads a value out of a tensor" in error.message) == (8, True)


@pytest.mark.parametrize(
    ("expression", "operator"),
    [
        ("torch.nn.functional.alpha_dropout(x, 0.5, True)", "bernoulli"),
        ("torch.bernoulli(x, 0.5)", "bernoulli"),
        ("x + torch.rand_like(x)", "rand_like"),
        ("torch.bernoulli(torch.sigmoid(x))", "bernoulli"),
        ("torch.nn.functional.scaled_dot_product_attention(x, x, x, dropout_p=0.1)", "scaled_dot_product_attention"),
        ("torch.nn.functional.rrelu(x, training=True)", "rrelu"),
    ],
)
def test_random_operator_in_training_mode(write, expression: str, operator: str) -> None:
    error = refusal(write(model(f"x = x * 1.5\nreturn {expression}")))
    assert error.line == 9
    assert operator in error.message
    assert "random" in error.message


def test_uninitialised_memory(write) -> None:
    error = refusal(write(model("return x + torch.empty_like(x)")))
    assert (error.line, "uninitialised" in error.message) == (8, True)


@pytest.mark.parametrize("value", ["3.5", "x.shape", "(x, 'done')"])
def test_result_that_is_not_tensors(write, value: str) -> None:
    error = refusal(write(model(f"return {value}")))
    assert (error.line, "not tensors only" in error.message) == (7, True)


def test_result_of_nothing(write) -> None:
    assert "returns no tensor" in refusal(write(model("return None"))).message


def test_get_init_inputs_of_the_wrong_type(write) -> None:
    error = refusal(write(model("return x") + "\ndef get_init_inputs():\n    return 3\n"))
    assert (error.line, "get_init_inputs() must return a list or a dict" in error.message) == (13, True)


def test_state_that_the_export_does_not_show(write) -> None:
    text = model("self.calls += 1\nreturn x * self.calls", init="self.calls = 0")
    assert "computes another out" in refusal(write(text)).message


def test_live_object_that_is_no_module() -> None:
    with pytest.raises(TaskError, match=r"expected a torch.nn.Module, got function"):
        task_from_module(lambda x: x, [torch.ones(3)])


def test_lazy_module_that_never_ran() -> None:
    with pytest.raises(TaskError, match="lazy"):
        task_from_module(torch.nn.LazyLinear(3), [torch.ones(2, 3)])


@pytest.mark.filterwarnings("ignore:.*torch.jit.script:DeprecationWarning")
def test_torchscript_module() -> None:
    with pytest.raises(TaskError, match="TorchScript"):
        task_from_module(torch.jit.script(torch.nn.Linear(4, 3)), [torch.ones(2, 4)])


def test_forward_that_runs_but_cannot_be_exported(write) -> None:
    error = refusal(write(model("y = x + 1\nreturn torch.from_numpy(y.numpy() * 2)")))
    assert (error.line, error.message.startswith("Model.forward cannot be exported: ")) == (9, True)


def test_module_in_a_relative_path(write, monkeypatch) -> None:
    path = Path(write(model("return x.cos() + torch.rand(4)")))
    monkeypatch.chdir(path.parent)
    assert str(refusal(path.name)).startswith("model.py:8: ")


def test_interrupts_pass_through(write) -> None:
    with pytest.raises(KeyboardInterrupt):
        load_task(write("raise KeyboardInterrupt\n"))
