"""Known bugs, each an edit of a good kernel, with the stages and the reasons that may stop it."""

from __future__ import annotations

from dataclasses import dataclass

from tests.judge.kernels import (
    ARG_MAX,
    BATCH_NORM,
    LAYER_NORM,
    LINEAR,
    LOG_MAX,
    ROW_MAX,
    SOFTMAX,
    SQUARE,
    TOTAL,
    Kernel,
)
from warpsmith.records import Stage


@dataclass(frozen=True)
class Mutation:
    """`edits` replace one text by another in the device code; the old text must stand there once."""

    name: str
    kernel: Kernel
    edits: tuple[tuple[str, str], ...]
    stages: tuple[Stage, ...]
    reasons: tuple[str, ...]

    @property
    def source(self) -> str:
        """The device code with the bug in it."""
        text = self.kernel.source
        for old, new in self.edits:
            assert text.count(old) == 1, f"{self.name}: {old!r} stands {text.count(old)} times"
            text = text.replace(old, new)
        return text


def _bug(name: str, kernel: Kernel, old: str, new: str, stages: tuple[Stage, ...], *reasons: str) -> Mutation:
    return Mutation(name, kernel, ((old, new),), stages, reasons)


_WRITE = "for (int c = t; c < cols; c += BLOCK) to[c] = expf(in[c] - most) / sum;"
_ADD = "for (int c = t; c < cols; c += BLOCK) sum += expf(in[c] - most);"
_PRODUCT = "sum += left[threadIdx.y][i] * right[threadIdx.x][i];"
_ACCUMULATE = "for (int i = 0; i < 16; ++i) " + _PRODUCT
_STORE = "if (row < rows && col < cols) out[row * cols + col] = sum + bias[col];"
_NORMALISE = "to[c] = (in[c] - mean) * scale * gain[c] + bias[c];"
_TF32 = "__uint_as_float((__float_as_uint({}) + 0x1000u) & 0xffffe000u)"
_BF16 = "__uint_as_float((__float_as_uint({}) + 0x8000u) & 0xffff0000u)"
_LEFT, _RIGHT = "left[threadIdx.y][i]", "right[threadIdx.x][i]"

NUMERICS, PROBES, SANITIZE, RUN = (Stage.NUMERICS,), (Stage.PROBES,), (Stage.SANITIZE,), (Stage.RUN,)
EARLY = (*NUMERICS, *PROBES)
WRONG = ("wrong_value",)

MUTATIONS: tuple[Mutation, ...] = (
    _bug(
        "dropped tail of a row is never written",
        SOFTMAX,
        _WRITE,
        _WRITE.replace("c < cols;", "c < cols / BLOCK * BLOCK;"),
        NUMERICS,
        "unwritten",
    ),
    _bug(
        "dropped tail of a sum", SOFTMAX, _ADD, _ADD.replace("c < cols;", "c < cols / BLOCK * BLOCK;"), NUMERICS, *WRONG
    ),
    _bug("last element left out of a sum", SOFTMAX, _ADD, _ADD.replace("c < cols;", "c < cols - 1;"), NUMERICS, *WRONG),
    _bug(
        "reads one element past the row", SOFTMAX, _ADD, _ADD.replace("c < cols;", "c <= cols;"), RUN, "out_of_bounds"
    ),
    _bug(
        "maximum is not subtracted",
        SOFTMAX,
        "    most = partial[0];\n    __syncthreads();",
        "    most = 0.0f;\n    __syncthreads();",
        NUMERICS,
        "unexpected_nan",
        "unexpected_infinity",
    ),
    _bug(
        "barrier missing before shared memory is used again",
        SOFTMAX,
        "    most = partial[0];\n    __syncthreads();",
        "    most = partial[0];",
        SANITIZE,
        "shared_race",
    ),
    _bug(
        "barrier missing within a tree",
        SOFTMAX,
        "if (t < s) partial[t] += partial[t + s];\n        __syncthreads();",
        "if (t < s) partial[t] += partial[t + s];",
        SANITIZE,
        "shared_race",
    ),
    _bug(
        "barrier that half of the threads skip",
        SOFTMAX,
        "if (t < s) partial[t] += partial[t + s];\n        __syncthreads();",
        "if (t < s) { partial[t] += partial[t + s]; __syncthreads(); }",
        (*RUN, *NUMERICS, *SANITIZE),
        "wrong_value",
        "barrier_divergence",
        "shared_race",
    ),
    _bug(
        "shared memory read before it is written",
        SOFTMAX,
        "    partial[t] = sum;\n    __syncthreads();",
        "    if (t < BLOCK - 1) partial[t] = sum;\n    __syncthreads();",
        NUMERICS,
        *WRONG,
    ),
    _bug(
        "constant output",
        SOFTMAX,
        _WRITE,
        "for (int c = t; c < cols; c += BLOCK) to[c] = 1.0f / cols;",
        NUMERICS,
        *WRONG,
    ),
    _bug(
        "wrong stride between rows",
        SOFTMAX,
        "const float* in = x + blockIdx.x * cols;",
        "const float* in = x + blockIdx.x * (cols - 1);",
        NUMERICS,
        *WRONG,
    ),
    _bug(
        "sum held in half precision",
        SOFTMAX,
        _ADD,
        _ADD.replace("sum += expf(in[c] - most)", "sum = " + _BF16.format("sum + expf(in[c] - most)")),
        NUMERICS,
        *WRONG,
    ),
    _bug(
        "operands rounded to TF32",
        LINEAR,
        _PRODUCT,
        f"sum += {_TF32.format(_LEFT)} * {_TF32.format(_RIGHT)};",
        NUMERICS,
        *WRONG,
    ),
    _bug(
        "operands rounded to bfloat16",
        LINEAR,
        _PRODUCT,
        f"sum += {_BF16.format(_LEFT)} * {_BF16.format(_RIGHT)};",
        NUMERICS,
        *WRONG,
    ),
    _bug(
        "accumulates in half precision",
        LINEAR,
        _PRODUCT,
        f"sum = __half2float(__float2half(sum + {_LEFT} * {_RIGHT}));",
        NUMERICS,
        *WRONG,
        "unexpected_infinity",
    ),
    _bug(
        "skips one 64th of the inner dimension",
        LINEAR,
        "k < inner ? x[",
        "k < inner - inner / 64 ? x[",
        NUMERICS,
        *WRONG,
    ),
    _bug("skips the last of the inner dimension", LINEAR, "k < inner ? x[", "k < inner - 1 ? x[", NUMERICS, *WRONG),
    _bug("bias left out", LINEAR, "sum + bias[col]", "sum", NUMERICS, *WRONG),
    _bug(
        "weight read with the stride of its transpose",
        LINEAR,
        "weight[other * inner + k]",
        "weight[k * cols + other]",
        NUMERICS,
        *WRONG,
    ),
    _bug(
        "writes past the last column and the last row",
        LINEAR,
        _STORE,
        _STORE.replace("if (row < rows && col < cols) ", "if (col < cols) "),
        RUN,
        "out_of_bounds",
    ),
    _bug(
        "byte offset held in 16 bits",
        LINEAR,
        "x[row * inner + k]",
        "*(const float*)((const char*)x + (short)(4 * (row * inner + k)))",
        RUN,
        "out_of_bounds",
    ),
    _bug(
        "barrier missing after a tile is used",
        LINEAR,
        f"{_ACCUMULATE}\n        __syncthreads();",
        _ACCUMULATE,
        SANITIZE,
        "shared_race",
    ),
    _bug(
        "writes to its input",
        LINEAR,
        _STORE,
        _STORE + " if (row < rows && col == 0) ((float*)x)[row * inner] = 0.0f;",
        RUN,
        "input_overwritten",
    ),
    _bug("gain left out", LAYER_NORM, _NORMALISE, _NORMALISE.replace(" * gain[c]", ""), NUMERICS, *WRONG),
    _bug("bias of a norm left out", LAYER_NORM, _NORMALISE, _NORMALISE.replace(" + bias[c]", ""), NUMERICS, *WRONG),
    _bug(
        "epsilon outside of the root",
        LAYER_NORM,
        "rsqrtf(warp_sum(squares) / cols + 1e-5f)",
        "1.0f / (sqrtf(warp_sum(squares) / cols) + 1e-5f)",
        NUMERICS,
        *WRONG,
        "unexpected_infinity",
    ),
    _bug("epsilon of another module", LAYER_NORM, "1e-5f", "1e-6f", NUMERICS, *WRONG),
    _bug(
        "unbiased variance where the biased is due",
        LAYER_NORM,
        "warp_sum(squares) / cols + 1e-5f",
        "warp_sum(squares) / (cols - 1) + 1e-5f",
        NUMERICS,
        *WRONG,
    ),
    _bug("identity, which normal inputs nearly allow", LAYER_NORM, _NORMALISE, "to[c] = in[c];", NUMERICS, *WRONG),
    _bug(
        "mean not subtracted from the squares",
        LAYER_NORM,
        "squares += (in[c] - mean) * (in[c] - mean)",
        "squares += in[c] * in[c]",
        NUMERICS,
        *WRONG,
    ),
    _bug(
        "running variance is the biased one", BATCH_NORM, "(squares / (rows - 1))", "(squares / rows)", NUMERICS, *WRONG
    ),
    _bug(
        "momentum the wrong way round",
        BATCH_NORM,
        "0.9f * mean_in[c] + 0.1f * mean",
        "0.1f * mean_in[c] + 0.9f * mean",
        NUMERICS,
        *WRONG,
    ),
    _bug(
        "an integer output is never written",
        BATCH_NORM,
        "if (c == 0) count_out[0] = count[0] + 1;",
        "",
        NUMERICS,
        "unwritten",
    ),
    _bug("an integer output is not advanced", BATCH_NORM, "count[0] + 1", "count[0]", NUMERICS, *WRONG),
    _bug(
        "NaN swallowed by fmaxf",
        LOG_MAX,
        "most = value > most || value != value ? value : most;",
        "most = fmaxf(most, value);",
        NUMERICS,
        "swallowed_nan",
    ),
    _bug("maximum seeded with zero", ROW_MAX, "most = -INFINITY", "most = 0.0f", EARLY, *WRONG),
    _bug(
        "maximum seeded with the smallest positive number",
        ROW_MAX,
        "most = -INFINITY",
        "most = FLT_MIN",
        EARLY,
        *WRONG,
    ),
    _bug("first column left out", ROW_MAX, "int c = 0;", "int c = 1;", NUMERICS, *WRONG),
    _bug(
        "last of equal values instead of the first",
        ARG_MAX,
        "> x[r * cols + best]",
        ">= x[r * cols + best]",
        NUMERICS,
        *WRONG,
    ),
    _bug("index written with 32 bits", ARG_MAX, "long long* out", "int* out", NUMERICS, "unwritten", *WRONG),
    _bug(
        "scratch that one block never writes",
        TOTAL,
        "if (threadIdx.x == 0) sums[blockIdx.x] = sum;",
        "if (threadIdx.x == 0 && sum != 0.0f && blockIdx.x + 1 < gridDim.x) sums[blockIdx.x] = sum;",
        NUMERICS,
        "unwritten",
    ),
    _bug(
        "a block clears what the next one writes",
        TOTAL,
        "    float sum = 0.0f;\n    for (int i = blockIdx.x * 64",
        "    if (threadIdx.x == 0 && blockIdx.x + 1 < gridDim.x) sums[blockIdx.x + 1] = 0.0f;\n"
        "    float sum = 0.0f;\n    for (int i = blockIdx.x * 64",
        SANITIZE,
        "global_race",
    ),
    _bug(
        "scratch read and not used",
        TOTAL,
        "float sum = block_sum(threadIdx.x < blocks ? sums[threadIdx.x] : 0.0f);",
        "float old = out[0]; float sum = block_sum(threadIdx.x < blocks ? sums[threadIdx.x] : 0.0f); if (old == 12345.0f) sum = old;",
        SANITIZE,
        "uninitialised",
    ),
    Mutation(
        "result kept in a global variable",
        SQUARE,
        (
            ('extern "C"', '__device__ int known[1003];\n__device__ float kept[1003];\nextern "C"'),
            (
                "if (i < count) out[i] = x[i] * x[i] + x[i];",
                "if (i < count && !known[i]) { kept[i] = x[i] * x[i] + x[i]; known[i] = 1; }\n    if (i < count) out[i] = kept[i];",
            ),
        ),
        RUN,
        ("kept_state",),
    ),
    _bug(
        "reads over the end and multiplies by zero",
        SQUARE,
        "out[i] = x[i] * x[i] + x[i];",
        "out[i] = x[i] * x[i] + x[i] + 0.0f * x[i + 1];",
        RUN,
        "out_of_bounds",
    ),
    _bug(
        "an endless loop",
        SQUARE,
        "if (i < count)",
        "while (count > 0) out[0] = count;\n    if (i < count)",
        RUN,
        "budget",
    ),
    _bug(
        "an address that is not aligned",
        SQUARE,
        "out[i] = x[i] * x[i] + x[i];",
        "out[i] = x[i] * x[i] + ((const float2*)x)[0].x * 0.0f + x[i] + *(const float*)((const char*)x + 2) * 0.0f;",
        RUN,
        "misaligned",
    ),
    _bug("an absolute value too many", SQUARE, "+ x[i];", "+ fabsf(x[i]);", NUMERICS, *WRONG),
)
