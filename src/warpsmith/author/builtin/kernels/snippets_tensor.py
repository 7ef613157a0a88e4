"""Pieces of CUDA that use tensor cores and asynchronous copies. PTX instructions are named as in the PTX ISA.

A fragment is what one lane holds of a small matrix. With `group = lane / 4` and `member = lane % 4`, a lane holds of
A (16 x 8, TF32) the elements (group, member), (group + 8, member), (group, member + 4), (group + 8, member + 4); of B
(8 x 8) the elements (member, group), (member + 4, group); of the accumulator (16 x 8) the elements (group, 2 member),
(group, 2 member + 1), and the same two of row group + 8. With 16-bit elements A is 16 x 16 and B 16 x 8, and two
neighbours along the depth stand where one TF32 element does.
"""

from __future__ import annotations

from collections.abc import Mapping

# Columns of the products of a warpgroup.
_WGMMA_COLUMNS = (32, 64, 128, 192, 256)


def _mma(kind: str, k: int, name: str) -> str:
    """A product of a warp, from fragments."""
    return f"""// acc (16 x 8) += a (16 x {k}) times b ({k} x 8), {name}.
__device__ void mma_{kind}(float (&acc)[4], const unsigned (&a)[4], const unsigned (&b)[2]) {{
    asm("mma.sync.aligned.m16n8k{k}.row.col.f32.{kind}.{kind}.f32 {{%0, %1, %2, %3}}, {{%4, %5, %6, %7}}, {{%8, %9}}, "
        "{{%0, %1, %2, %3}};"
        : "+f"(acc[0]), "+f"(acc[1]), "+f"(acc[2]), "+f"(acc[3])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
}}"""


def _sums(columns: int) -> tuple[str, str]:
    """Registers of the sums of 64 rows, as the instruction names them and as operands."""
    count = columns // 2
    operands = ", ".join(f'"+f"(acc[{i // 4}][{i % 4}])' for i in range(count))
    return ", ".join(f"%{i}" for i in range(count)), operands


def _wgmma16(kind: str, columns: int) -> str:
    """An asynchronous product of 64 rows of 16-bit elements, both operands in shared memory."""
    count = columns // 2
    sums, operands = _sums(columns)
    return f"""// Begin acc (64 x {columns}, four warps) = a (64 x 16) b (16 x {columns}), plus acc if `keep`.
// A, B: is it by columns?
template <int A, int B>
__device__ void wgmma_{kind}(float (&acc)[{columns // 8}][4], unsigned long long a, unsigned long long b,
                          bool keep = true) {{
    asm volatile("{{\\n.reg .pred keep;\\nsetp.ne.b32 keep, %{count + 4}, 0;\\n"
        "wgmma.mma_async.sync.aligned.m64n{columns}k16.f32.{kind}.{kind} {{{sums}}}, "
        "%{count}, %{count + 1}, keep, 1, 1, %{count + 2}, %{count + 3};\\n}}"
        : {operands}
        : "l"(a), "l"(b), "n"(A), "n"(B), "r"(int(keep)));
}}"""


def _wgmma(columns: int) -> str:
    """An asynchronous product of 64 rows in TF32, the left operand in registers."""
    count = columns // 2
    sums, operands = _sums(columns)
    return f"""// Begin acc (64 x {columns}, over four warps) = a (64 x 8) times b (8 x {columns}), plus acc if `keep`.
__device__ void wgmma_tf32(float (&acc)[{columns // 8}][4], const unsigned (&a)[4], unsigned long long b, bool keep) {{
    asm volatile("{{\\n.reg .pred keep;\\nsetp.ne.b32 keep, %{count + 5}, 0;\\n"
        "wgmma.mma_async.sync.aligned.m64n{columns}k8.f32.tf32.tf32 {{{sums}}}, "
        "{{%{count}, %{count + 1}, %{count + 2}, %{count + 3}}}, %{count + 4}, keep, 1, 1;\\n}}"
        : {operands}
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b), "r"(int(keep)));
}}"""


def _wgmma_shared(columns: int) -> str:
    """An asynchronous product of 64 rows in TF32, both operands in shared memory."""
    count = columns // 2
    sums, operands = _sums(columns)
    return f"""// Begin acc (64 x {columns}, four warps) += a (64 x 8) b (8 x {columns}), both by rows of their depth.
__device__ void wgmma_tf32(float (&acc)[{columns // 8}][4], unsigned long long a, unsigned long long b) {{
    asm volatile("wgmma.mma_async.sync.aligned.m64n{columns}k8.f32.tf32.tf32 {{{sums}}}, "
        "%{count}, %{count + 1}, 1, 1, 1;"
        : {operands}
        : "l"(a), "l"(b));
}}"""


TENSOR_SNIPPETS: Mapping[str, str] = {
    "Tf32": """// x as a sum of two numbers with the eleven significant bits that tensor cores read. The larger one
// is rounded, so that what is lost beyond the smaller one has either sign. An infinity leaves NaN.
struct Tf32 { unsigned large, small; };
__device__ Tf32 split_tf32(float x) {
    const unsigned large = (__float_as_uint(x) + 0x1000u) & 0xffffe000u;
    return {large, __float_as_uint(x - __uint_as_float(large))};
}""",
    "round_tf32": """// The nearest number with the eleven significant bits that tensor cores read.
__device__ unsigned round_tf32(float x) {
    unsigned rounded;
    asm("cvt.rna.tf32.f32 %0, %1;" : "=r"(rounded) : "f"(x));
    return rounded;
}""",
    "mma_tf32": _mma("tf32", 8, "TF32"),
    "mma_f16": _mma("f16", 16, "float16"),
    "mma_bf16": _mma("bf16", 16, "bfloat16"),
    "load_matrices": """// Load four matrices of eight rows of 16 bytes; lanes 0 to 7 point to those of the first.
__device__ void load_matrices(unsigned (&to)[4], const void* row) {
    const unsigned at = unsigned(__cvta_generic_to_shared(row));
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(to[0]), "=r"(to[1]), "=r"(to[2]), "=r"(to[3]) : "r"(at) : "memory");
}""",
    "load_transposed": """// Load four matrices of 8 x 8 16-bit elements, each transposed.
__device__ void load_transposed(unsigned (&to)[4], const void* row) {
    const unsigned at = unsigned(__cvta_generic_to_shared(row));
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(to[0]), "=r"(to[1]), "=r"(to[2]), "=r"(to[3]) : "r"(at) : "memory");
}""",
    "copy_async": """// Begin to copy Bytes (4, 8 or 16) from global to shared memory; zeros if not `inside`.
template <int Bytes> __device__ void copy_async(void* to, const void* from, bool inside = true) {
    const unsigned at = unsigned(__cvta_generic_to_shared(to));
    const int size = inside ? Bytes : 0;
    if constexpr (Bytes == 16) {
        asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" :: "r"(at), "l"(from), "r"(size) : "memory");
    } else {
        asm volatile("cp.async.ca.shared.global [%0], [%1], %2, %3;"
                     :: "r"(at), "l"(from), "n"(Bytes), "r"(size) : "memory");
    }
}
__device__ void commit_copies() { asm volatile("cp.async.commit_group;" ::: "memory"); }

// Wait until no more than Groups of the committed groups are on their way.
template <int Groups> __device__ void await_copies() {
    asm volatile("cp.async.wait_group %0;" :: "n"(Groups) : "memory");
}""",
    "copy_bulk": """// A barrier in shared memory: a phase ends with the last arrival and the last byte due.
__device__ unsigned barrier_at(const void* barrier) { return unsigned(__cvta_generic_to_shared(barrier)); }
__device__ void barrier_init(unsigned long long* barrier, int arrivals) {
    asm volatile("mbarrier.init.shared::cta.b64 [%0], %1;" :: "r"(barrier_at(barrier)), "r"(arrivals) : "memory");
}
// Let the copy engine see barriers that were initialised.
__device__ void barrier_publish() { asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory"); }
__device__ void barrier_arrive(unsigned long long* barrier) {
    asm volatile("mbarrier.arrive.shared::cta.b64 _, [%0];" :: "r"(barrier_at(barrier)) : "memory");
}
// Arrive, and expect so many bytes.
__device__ void barrier_expect(unsigned long long* barrier, int bytes) {
    asm volatile("mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;"
                 :: "r"(barrier_at(barrier)), "r"(bytes) : "memory");
}
// Wait until the last phase that was even (turn 0) or odd (turn 1) has ended.
__device__ void barrier_await(unsigned long long* barrier, int turn) {
    unsigned done = 0;
    while (!done) {
        asm volatile("{\\n.reg .pred done;\\nmbarrier.try_wait.parity.shared::cta.b64 done, [%1], %2;\\n"
                     "selp.u32 %0, 1, 0, done;\\n}"
                     : "=r"(done) : "r"(barrier_at(barrier)), "r"(turn) : "memory");
    }
}

// Begin to copy so many bytes, a multiple of 16, from global to shared memory; the barrier hears of them.
__device__ void copy_bulk(void* to, const void* from, int bytes, unsigned long long* barrier) {
    asm volatile("cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes [%0], [%1], %2, [%3];"
                 :: "r"(unsigned(__cvta_generic_to_shared(to))), "l"(from), "r"(bytes), "r"(barrier_at(barrier))
                 : "memory");
}""",
    "wgmma": """// Products of warpgroups run on their own: their registers must not change between begin and await.
__device__ void wgmma_begin() { asm volatile("wgmma.fence.sync.aligned;" ::: "memory"); }
__device__ void wgmma_commit() { asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory"); }

// Wait for all of them but the last Pending. To the compiler the sums change here, so it reads none of them before.
template <int Pending = 0, int Columns> __device__ void wgmma_await(float (&acc)[Columns][4]) {
    asm volatile("wgmma.wait_group.sync.aligned %0;" :: "n"(Pending) : "memory");
    #pragma unroll
    for (int j = 0; j < Columns; ++j) {
        asm volatile("" : "+f"(acc[j][0]), "+f"(acc[j][1]), "+f"(acc[j][2]), "+f"(acc[j][3]) :: "memory");
    }
}

// Let tensor cores see what this thread has written to shared memory.
__device__ void wgmma_publish() { asm volatile("fence.proxy.async.shared::cta;" ::: "memory"); }

// A matrix in shared memory: rows of 128 bytes, swizzled, every eight of them 1024 bytes from the last.
__device__ unsigned long long describe_rows(const void* tile) {
    const unsigned at = unsigned(__cvta_generic_to_shared(tile));
    return 1ull << 62 | 64ull << 32 | 1ull << 16 | (at & 0x3ffffu) >> 4;
}""",
    "wgmma_shared": """__device__ void wgmma_await_last_but_one() {
    asm volatile("wgmma.wait_group.sync.aligned 1;" ::: "memory");
}

// A matrix that lies by columns: 64 elements of each in a row of 128 bytes, swizzled; 8192 bytes to the next 64.
__device__ unsigned long long describe_columns(const void* tile) {
    const unsigned at = unsigned(__cvta_generic_to_shared(tile));
    return 1ull << 62 | 64ull << 32 | 512ull << 16 | (at & 0x3ffffu) >> 4;
}""",
    **{f"wgmma_tf32_{columns}": _wgmma(columns) for columns in _WGMMA_COLUMNS},
    **{f"wgmma_shared_tf32_{columns}": _wgmma_shared(columns) for columns in _WGMMA_COLUMNS},
    **{
        f"wgmma_shared_{kind}_{columns}": _wgmma16(kind, columns)
        for kind in ("f16", "bf16")
        for columns in _WGMMA_COLUMNS
    },
}
