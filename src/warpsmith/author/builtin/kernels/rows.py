"""Rows: regions that reduce, and whatever pointwise work hangs on the same rows.

Softmax, norms, losses, argmax, pooling windows and plain reductions are all rows. A kernel passes over a row once for
each step that depends on an earlier one, then once more to write elements.
"""

from __future__ import annotations

from collections.abc import Sequence

from warpsmith.author.builtin.kernels.emission import (
    Gene,
    Genes,
    Kernels,
    Scope,
    Sink,
    function,
    hoist,
    indented,
    loads,
    vector_widths,
)
from warpsmith.author.builtin.kernels.frame import Frame
from warpsmith.author.builtin.kernels.mapping import Mapping, block_per_row, columns, thread_per_row, warp_per_row
from warpsmith.author.builtin.kernels.passes import Pass
from warpsmith.author.builtin.kernels.rows_cluster import cluster_per_row, clusters_first, suits_clusters
from warpsmith.author.builtin.kernels.rows_kept import MOST_REGISTERS, Kept
from warpsmith.author.builtin.kernels.rows_strip import emit_row_strips, slide_along
from warpsmith.author.builtin.kernels.split import emit_split
from warpsmith.author.builtin.printer import Printer
from warpsmith.author.builtin.regions import Region
from warpsmith.author.builtin.values import Reduction
from warpsmith.records import GpuSpec, Launch

_FEW_PER_THREAD = 16
_MOST_THREADS = 1024
# Columns from which on few rows are worth a kernel more.
_LONG = 1 << 15


class Rows:
    """Algorithms: `thread`, `warp`, `block` to a row, `columns` for rows side by side, `split` for few long rows,
    `cluster` for rows that several blocks can hold, `strip` for windows that overlap.
    """

    def genes(self, region: Region, gpu: GpuSpec) -> tuple[Gene, ...]:
        """Algorithm, vector width, where a row is kept between passes, one pass or two, which rows a thread takes."""
        width = _run(region)
        slide = slide_along(region)
        genes = [Gene("algorithm", (*(("strip",) if slide else ()), *_algorithms(region, gpu)))]
        dtypes = _dtypes(region)
        widths = vector_widths(width, dtypes) if width > 1 else (1,)
        genes.append(Gene("vec", tuple(sorted(widths, key=lambda v: (v != min(4, max(widths)), v)))))
        if len(region.producers) > 1 or region.written("element") or _compound(region):
            first = genes[0].choices[0] == "cluster"
            stages = ("shared", "registers", "reload") if first else ("registers", "reload", "shared")
            genes.append(Gene("stage", stages))
        if _compound(region):
            # A row that no block can hold is read once more by each pass.
            likeliest = genes[0].choices[0]
            reread = likeliest == "split" or (likeliest != "cluster" and region.cols > MOST_REGISTERS * _MOST_THREADS)
            genes.append(Gene("passes", ("one", "two") if reread else ("two", "one")))
        if "thread" in genes[0].choices:
            genes.append(Gene("rows", ("spread", "adjacent")))
        if slide is not None:
            genes.append(Gene("strip", slide.lengths))
        return tuple(genes)

    def emit(self, region: Region, genes: Genes, scope: Scope) -> Kernels:
        """Write one kernel, or for `split` one for each pass and one for the results."""
        algorithm = str(genes["algorithm"])
        if algorithm == "strip":
            slide = slide_along(region)
            assert slide is not None
            return emit_row_strips(region, scope, slide, int(genes["strip"]))
        vec = int(genes["vec"]) if algorithm in ("warp", "block", "cluster", "split") else 1
        frame = Frame.of(region, vec, one_pass=genes.get("passes") == "one")
        if algorithm == "split":
            return emit_split(frame, scope)
        if algorithm == "cluster":
            mapping = cluster_per_row(frame, scope)
        elif algorithm == "block":
            mapping = block_per_row(region.rows, scope, _block_sizes(frame))
        else:
            mapping = _mapping(algorithm, region, scope, adjacent=genes.get("rows") == "adjacent")
        return _Kernel(frame, mapping, scope, str(genes.get("stage", "reload"))).emit()


class _Kernel:
    """Writes one kernel for a frame, a mapping and a way of staging."""

    def __init__(self, frame: Frame, mapping: Mapping, scope: Scope, stage: str) -> None:
        self.frame, self.mapping, self.scope = frame, mapping, scope
        self.elements = frame.element_stores()
        self.kept = Kept.of(frame, mapping, stage)
        self.helpers = {mapping.snippet} - {""}

    def emit(self) -> Kernels:
        """Put the parts together."""
        frame, mapping, scope = self.frame, self.mapping, self.scope
        names, params = frame.signature()
        printer = scope.printer()
        body, fetched = self.kept.declared(), self.kept.fetched(printer)
        if fetched and self.kept.where != "cluster":
            body += self._looped(fetched)
            fetched = []
        for number, one in enumerate(frame.passes):
            body += self._pass(printer, one, fetched if number == 0 else [])
        if self.elements:
            body += self._loop(printer, self.elements, guard=mapping.inside)
        body += self._row_results(printer)
        if mapping.looped:
            body = [*mapping.setup[:2], *indented([*mapping.setup[2:], *body]), "}"]
        else:
            body = [*mapping.setup, *body]
        unit = f"vectors of {frame.lanes.vec}" if frame.lanes.vec > 1 else "columns"
        body.insert(0, f"constexpr {scope.integer} ROWS = {frame.region.rows}, COLS = {self._groups};  // {unit}")
        if frame.lanes.vec > 1:
            self.helpers.add("Vec")
        source = function(scope, scope.kernel, params, mapping.bounds, body, frame.comment())
        clusters = (mapping.cluster,) if mapping.cluster else ()
        launch = Launch(scope.kernel, mapping.grid, mapping.block, names, self.kept.bytes, clusters)
        return Kernels(source, (launch,), self._tunables(source), helpers=frozenset(self.helpers))

    def _tunables(self, source: str) -> tuple[tuple[str, tuple[int, ...]], ...]:
        unroll = self.scope.tunable("UNROLL")
        # Narrow reads into shared memory leave too few bytes under way.
        values = (8, 4, 2, 1) if self.kept.where == "cluster" and self.frame.lanes.vec == 1 else (4, 1, 2, 8)
        return self.mapping.tunables + (((unroll, values),) if unroll in source else ())

    @property
    def _groups(self) -> int:
        return self.frame.lanes.group.extent

    def _pass(self, printer: Printer, one: Pass, before: Sequence[str]) -> list[str]:
        """Fill the accumulators of a pass and merge them over the row; `before` stands first in the loop."""
        text: list[str] = []
        sinks: list[Sink] = []
        for step in one.steps:
            self.helpers.add(step.struct)
            text.append(f"auto {step.variable} = {step.ctype}::empty();")
            sinks.append(step.sink(self.frame.lanes.linear))
        text += self._loop(printer, sinks, before=before)
        for step in one.steps:
            text += self.mapping.merge(step)
        return text

    def _loop(self, printer: Printer, sinks: Sequence[Sink], guard: str = "", before: Sequence[str] = ()) -> list[str]:
        """Run over the row; what does not change along it is computed before."""
        text = hoist(printer, [sink.value for sink in sinks], self.frame.inner)
        body = [*before, *self.frame.lanes.body(printer.fork(), sinks)]
        return text + self._looped([f"if ({guard}) {{", *indented(body), "}"] if guard else body)

    def _looped(self, body: list[str]) -> list[str]:
        groups, threads = self._groups, self.mapping.threads
        unroll = f"#pragma unroll {self.scope.tunable('UNROLL')}"
        if self.kept.by_items:
            place = f"item * {threads} + lane" if threads != "1" else "item"
            whole = groups == 1 or threads == "1"
            guarded = body if whole else [f"if (COLS % {threads} == 0 || j < COLS) {{", *indented(body), "}"]
            head = "#pragma unroll" if self.kept.where == "registers" else unroll
            text = [head, "for (int item = 0; item < ITEMS; ++item) {"]
            return [*text, f"    const {self.scope.integer} j = {place};", *indented(guarded), "}"]
        if threads == "1" and groups <= 32:
            unroll = "#pragma unroll"
        integer = self.scope.integer
        start, step = ("0", "++j") if threads == "1" else ("lane", f"j += {threads}")
        return [unroll, f"for ({integer} j = {start}; j < COLS; {step}) {{", *indented(body), "}"]

    def _row_results(self, printer: Printer) -> list[str]:
        stores = self.frame.row_stores()
        if not stores:
            return []
        inner = printer.fork()
        text = inner.share([s.value for s in stores]) + [s.hand_over(inner) for s in stores]
        conditions = [c for c in ("lane == 0" if self.mapping.threads != "1" else "", self.mapping.inside) if c]
        return [f"if ({' && '.join(conditions)}) {{", *indented(text), "}"] if conditions else text


def _mapping(algorithm: str, region: Region, scope: Scope, *, adjacent: bool) -> Mapping:
    if algorithm == "thread":
        return thread_per_row(region.rows, scope, adjacent)
    if algorithm == "warp":
        return warp_per_row(region.rows, scope)
    return columns(region.rows, scope)


def _block_sizes(frame: Frame) -> tuple[int, ...]:
    """Threads to a row, the likeliest first: no more than there are vectors, but at least two warps.

    A row that is passed over more than once asks for threads enough to keep it in registers, or else, with fewer rows
    under way at a time, in the cache.
    """
    groups, cols = frame.lanes.group.extent, frame.region.cols
    sizes = [b for b in (256, 128, 512, 1024, 64) if b <= max(64, 2 * groups)] or [64]
    if len(frame.passes) + bool(frame.element_stores()) == 1:
        return tuple(sizes)
    first = next((b for b in (256, 512, 1024) if b in sizes and cols <= _FEW_PER_THREAD * b), max(sizes))
    enough = [b for b in sizes if cols <= MOST_REGISTERS * b] or [b for b in sizes if b >= 512] or sizes
    return (first, *(b for b in enough if b != first))


def _run(region: Region) -> int:
    """Number of neighbouring columns that lie side by side in memory: the last dimension, if it is reduced."""
    last = max((d for d, e in enumerate(region.domain) if e > 1), default=0)
    return region.domain[last] if last in region.reduced and region.domain else 1


def _algorithms(region: Region, gpu: GpuSpec) -> tuple[str, ...]:
    """Every algorithm that suits the shape, the likeliest first."""
    rows, cols = region.rows, region.cols
    fitting: list[str] = []
    if _run(region) == 1:
        fitting = ["columns", "thread"] if cols >= 32 else ["thread", "columns"]
        fitting += ["block"] if cols >= 64 else []
    else:
        if cols >= 32:
            # With too few rows to give every scheduler a warp, more threads to a row are the only parallelism there is.
            few = rows < 8 * gpu.sm_count and cols >= 128
            fitting += ["block", "warp"] if few or cols > 1024 else ["warp", "block"]
        fitting += ["thread"] if cols <= 512 else []
        fitting += ["columns"] if cols < 32 else []
    if rows <= 2 * gpu.sm_count and cols >= 1024:
        # A block to a row leaves most of the GPU idle; how much that costs grows with the row.
        first = rows * 8 <= gpu.sm_count or cols >= _LONG
        fitting.insert(0 if first else len(fitting), "split")
    if _run(region) > 1 and suits_clusters(region, gpu):
        fitting.insert(0 if clusters_first(region, gpu) else len(fitting), "cluster")
    return tuple(fitting)


def _compound(region: Region) -> bool:
    return any(isinstance(p, Reduction) and p.kind in ("mean_var", "max_sumexp") for p in region.producers)


def _dtypes(region: Region) -> list[str]:
    reads = loads([o for p in region.producers for o in p.operands()])
    return [load.stored for load in reads] + [o.dtype for o in region.written("element")]
