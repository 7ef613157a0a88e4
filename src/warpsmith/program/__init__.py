"""Programs: CUDA device code with a declarative launch plan, parsed, bound to shapes, and built."""

from warpsmith.program.bind import bind
from warpsmith.program.build import Builder
from warpsmith.program.files import read_program, write_program
from warpsmith.program.flags import FLAGS
from warpsmith.program.kernels import Kernel, Parameter, kernels_in, misfits
from warpsmith.program.plan import format_plan, parse_plan

__all__ = [
    "FLAGS",
    "Builder",
    "Kernel",
    "Parameter",
    "bind",
    "format_plan",
    "kernels_in",
    "misfits",
    "parse_plan",
    "read_program",
    "write_program",
]
