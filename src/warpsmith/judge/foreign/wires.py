"""Words in a solution's text that are worth a second look. They are told to people and decide nothing.

Text can say one thing and do another (names joined from parts, code made at run time), and each of these words has an
honest use, so a solution is neither refused nor cleared by them.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

_WORDS: Mapping[str, str] = MappingProxyType(
    {
        "subprocess": "starts programs",
        "os.system": "starts programs",
        "socket": "speaks to a network",
        "urllib": "speaks to a network",
        "ctypes": "calls into memory directly",
        "gc.get_objects": "looks through all objects",
        "gc.get_referrers": "looks through all objects",
        "inspect.currentframe": "walks the stack",
        "inspect.stack": "walks the stack",
        "sys._getframe": "walks the stack",
        "/proc/": "looks at processes",
        "os._exit": "ends its process",
        "os.kill": "signals processes",
        "os.fork": "starts processes",
        "threading": "starts threads",
        "multiprocessing": "starts processes",
        "data_ptr": "looks at addresses, as results kept by address do",
        "_version": "looks at version counters, as results kept by content do",
        "torch.cuda.Event": "handles the clock's events",
        "torch.cuda.synchronize": "handles the clock's events",
        "elapsed_time": "handles the clock's events",
        "perf_counter": "reads the clock",
        "torch.allclose": "handles comparison",
        "torch.equal": "handles comparison",
        "except": "catches errors, as falling back does",
        "exec(": "makes code at run time",
        "eval(": "makes code at run time",
        "__import__": "makes code at run time",
        "setattr(torch": "changes PyTorch",
        "Model(": "may construct the original module",
    }
)


def notes(source: str) -> tuple[str, ...]:
    """Return what stands out in the text, one short phrase each."""
    found: dict[str, list[str]] = {}
    for word, meaning in _WORDS.items():
        if word in source:
            found.setdefault(meaning, []).append(word)
    return tuple(f"{meaning} ({', '.join(words)})" for meaning, words in found.items())
