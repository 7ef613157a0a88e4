"""Whose work is it? Which of PyTorch's own operators a solution uses, told beside its verdict.

A call of the library in the guise of a kernel of one's own, a fallback to the original module and a kernel that is
never launched all give right answers, so they cannot fail; what they claim can be told apart. The list comes from the
solution's own process, which could hold something back: it is a report and no proof.
"""

from __future__ import annotations

from collections.abc import Sequence

from warpsmith.records import Profile

_LIBRARY_NAMES = """
    mm bmm addmm baddbmm addmv mv dot matmul linear einsum convolution conv1d conv2d conv3d
    conv_transpose1d conv_transpose2d conv_transpose3d
    _scaled_dot_product_flash_attention _scaled_dot_product_efficient_attention
    _scaled_dot_product_flash_attention_for_cpu scaled_dot_product_attention _softmax _log_softmax native_layer_norm
    native_group_norm native_batch_norm _native_batch_norm_legit cumsum cumprod sort topk gelu silu mish
    max_pool2d_with_indices avg_pool2d mean sum amax amin logsumexp var std relu sigmoid tanh
"""
_LIBRARY = frozenset(_LIBRARY_NAMES.split())


def profile_of(operators: Sequence[tuple[str, int]], notes: Sequence[str]) -> Profile:
    """Return what one call used, as `aten.name.overload` with counts, together with what was noted before."""
    used: dict[str, int] = {}
    for full, count in operators:
        name = full.split(".")[1] if "." in full else full
        used[name] = used.get(name, 0) + count
    library = sorted(name for name in used if name in _LIBRARY)
    said = [*notes, f"PyTorch's own {', '.join(library)} does work of the call"] if library else list(notes)
    metrics = (("library calls", float(sum(used[name] for name in library))), ("operators", float(sum(used.values()))))
    noted = f"Noted: {'; '.join(said)}." if said else "Nothing was noted."
    return Profile(metrics, "library calls" if library else "host code", f"Host code: not contained. {noted}")
