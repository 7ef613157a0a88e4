"""A library call carried out by PyTorch, on whatever memory its tensors lie in: in the simulator and on a GPU alike.

Only operators of `warpsmith.program.library` get here, with shapes that `bind` has checked. Each writes `out` in place.
This file is imported only where a plan has calls: loading PyTorch takes seconds.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch

from warpsmith.records import BoundView

Options = Mapping[str, Sequence[int]]


def view_of(whole: torch.Tensor, view: BoundView) -> torch.Tensor:
    """Return what a call sees of a tensor, given as a flat tensor of all its elements."""
    return whole.as_strided(view.shape, view.strides, whole.storage_offset() + view.offset)


def compute(op: str, args: Sequence[torch.Tensor], out: torch.Tensor, options: Options, tf32: bool) -> None:
    """Carry out a call. Raises RuntimeError where PyTorch cannot."""
    with torch.no_grad():
        if op == "aten.convolution":
            _convolution(args, out, options, tf32)
            return
        # On a CPU the flag is never looked at.
        torch.backends.cuda.matmul.allow_tf32 = tf32
        getattr(torch.ops.aten, op.removeprefix("aten.")).out(*args, out=out)


def _convolution(args: Sequence[torch.Tensor], out: torch.Tensor, options: Options, tf32: bool) -> None:
    images, weights = args[:2]
    bias = args[2] if len(args) > 2 else None
    stride, padding, dilation, more = (
        list(options[name]) for name in ("stride", "padding", "dilation", "output_padding")
    )
    transposed, groups = bool(options["transposed"][0]), options["groups"][0]
    torch.backends.cuda.matmul.allow_tf32 = False
    torch.backends.cudnn.allow_tf32 = tf32
    if _suits_cudnn(images, weights, out, transposed, groups):
        # This overload writes `out` itself; that of `convolution` makes a tensor of its own and copies it.
        settings = (padding, stride, dilation, groups, False, True, tf32)
        torch.ops.aten.cudnn_convolution.out(images, weights, *settings, out=out)
        if bias is not None:
            out.add_(bias.view(-1, *[1] * len(stride)))
        return
    settings_of_any = (stride, padding, dilation, transposed, more, groups)
    torch.ops.aten.convolution.out(images, weights, bias, *settings_of_any, out=out)


def _suits_cudnn(images: torch.Tensor, weights: torch.Tensor, out: torch.Tensor, transposed: bool, groups: int) -> bool:
    """Whether it is cuDNN that PyTorch would take, for tensors that it would hand over as they are.

    One image group and dimensions of space are what cuDNN is best at; PyTorch has other kernels for depthwise ones.
    """
    plain = all(tensor.is_contiguous() for tensor in (images, weights, out))
    whole = not transposed and groups == 1 and images.dim() in (4, 5) and out.numel() > 0
    return images.is_cuda and plain and whole and torch.backends.cudnn.is_available()  # type: ignore[no-untyped-call]
