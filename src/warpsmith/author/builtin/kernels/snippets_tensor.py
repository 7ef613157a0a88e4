"""Pieces of CUDA that use tensor cores and asynchronous copies. PTX instructions are named as in the PTX ISA.

A fragment is what one lane holds of a small matrix. With `group = lane / 4` and `member = lane % 4`, a lane holds of
A (16 x 8, TF32) the elements (group, member), (group + 8, member), (group, member + 4), (group + 8, member + 4); of B
(8 x 8) the elements (member, group), (member + 4, group); of the accumulator (16 x 8) the elements (group, 2 member),
(group, 2 member + 1), and the same two of row group + 8. With 16-bit elements A is 16 x 16 and B 16 x 8, and two
neighbours along the depth stand where one TF32 element does.
"""

from __future__ import annotations

from collections.abc import Mapping

TENSOR_SNIPPETS: Mapping[str, str] = {
    "Tf32": """// x as a sum of two numbers with the eleven significant bits that tensor cores read.
struct Tf32 { unsigned large, small; };
__device__ Tf32 split_tf32(float x) {
    const unsigned large = __float_as_uint(x) & 0xffffe000u;
    const float rest = x - __uint_as_float(large);
    // An infinity has no rest; subtracted from itself it would leave NaN.
    return {large, fabsf(x) < INFINITY ? __float_as_uint(rest) : 0u};
}""",
    "mma_tf32": """// acc (16 x 8) += a (16 x 8) times b (8 x 8), TF32.
__device__ void mma_tf32(float (&acc)[4], const unsigned (&a)[4], const unsigned (&b)[2]) {
    asm volatile("mma.sync.aligned.m16n8k8.row.col.f32.tf32.tf32.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, "
                 "{%0, %1, %2, %3};"
                 : "+f"(acc[0]), "+f"(acc[1]), "+f"(acc[2]), "+f"(acc[3])
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
}""",
    "mma_f16": """// acc (16 x 8) += a (16 x 16) times b (16 x 8), float16.
__device__ void mma_f16(float (&acc)[4], const unsigned (&a)[4], const unsigned (&b)[2]) {
    asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, "
                 "{%0, %1, %2, %3};"
                 : "+f"(acc[0]), "+f"(acc[1]), "+f"(acc[2]), "+f"(acc[3])
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
}""",
    "mma_bf16": """// acc (16 x 8) += a (16 x 16) times b (16 x 8), bfloat16.
__device__ void mma_bf16(float (&acc)[4], const unsigned (&a)[4], const unsigned (&b)[2]) {
    asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, "
                 "{%0, %1, %2, %3};"
                 : "+f"(acc[0]), "+f"(acc[1]), "+f"(acc[2]), "+f"(acc[3])
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
}""",
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
}
