// One kernel for each operation: out[i] = bits of f(x[i], y[i], z[i]). Run on a GPU to record what hardware gives, and
// in the simulator to compare. Kernels whose name begins with `approx_` use instructions that hardware approximates.
#include <cuda_bf16.h>
#include <cuda_fp16.h>

#define KERNEL(name, expression)                                                                                       \
    extern "C" __global__ void name(const float* xs, const float* ys, const float* zs, unsigned* out) {                \
        const int i = blockIdx.x * blockDim.x + threadIdx.x;                                                           \
        const float x = xs[i], y = ys[i], z = zs[i];                                                                   \
        const unsigned u = __float_as_uint(x), v = __float_as_uint(y), w = __float_as_uint(z);                         \
        const int lane = threadIdx.x % 32;                                                                             \
        out[i] = expression;                                                                                           \
    }
#define BITS(value) __float_as_uint(value)
#define HALF(value) unsigned(__half_as_ushort(value))
#define BF16(value) unsigned(__bfloat16_as_ushort(value))

__device__ unsigned folded(double d) {
    const long long b = __double_as_longlong(d);
    return unsigned(b) ^ unsigned(b >> 32) * 2654435761u;
}
__device__ unsigned folded(long long b) { return unsigned(b) ^ unsigned(b >> 32) * 2654435761u; }

KERNEL(add, BITS(x + y))
KERNEL(sub, BITS(x - y))
KERNEL(mul, BITS(x* y))
KERNEL(fma_, BITS(fmaf(x, y, z)))
KERNEL(divide, BITS(__fdiv_rn(x, y)))
KERNEL(square_root, BITS(__fsqrt_rn(x)))
KERNEL(reciprocal, BITS(__frcp_rn(x)))
KERNEL(add_rz, BITS(__fadd_rz(x, y)))
KERNEL(mul_ru, BITS(__fmul_ru(x, y)))
KERNEL(fma_rd, BITS(__fmaf_rd(x, y, z)))
KERNEL(minimum, BITS(fminf(x, y)))
KERNEL(maximum, BITS(fmaxf(x, y)))
KERNEL(absolute, BITS(fabsf(x)))
KERNEL(saturate, BITS(__saturatef(x)))
KERNEL(round_even, BITS(rintf(x)))
KERNEL(round_down, BITS(floorf(x)))
KERNEL(round_up, BITS(ceilf(x)))
KERNEL(round_zero, BITS(truncf(x)))
KERNEL(copy_sign, BITS(copysignf(x, y)))
KERNEL(less, unsigned(x < y) | unsigned(x <= y) << 1 | unsigned(x == y) << 2 | unsigned(x != y) << 3 | unsigned(!(x >= y)) << 4)
KERNEL(to_int_rz, unsigned(__float2int_rz(x)))
KERNEL(to_int_rn, unsigned(__float2int_rn(x)))
KERNEL(to_uint_rz, __float2uint_rz(x))
KERNEL(to_long_rd, folded(__float2ll_rd(x)))
KERNEL(from_int, BITS(__int2float_rn(int(u))))
KERNEL(from_uint_rz, BITS(__uint2float_rz(u)))
KERNEL(to_half, HALF(__float2half_rn(x)))
KERNEL(to_half_rz, HALF(__float2half_rz(x)))
KERNEL(from_half, BITS(__half2float(__ushort_as_half(u & 0xffff))))
KERNEL(to_bfloat, BF16(__float2bfloat16_rn(x)))
KERNEL(from_bfloat, BITS(__bfloat162float(__ushort_as_bfloat16(u & 0xffff))))
KERNEL(half_add, HALF(__hadd(__float2half_rn(x), __float2half_rn(y))))
KERNEL(half_mul, HALF(__hmul(__float2half_rn(x), __float2half_rn(y))))
KERNEL(half_fma, HALF(__hfma(__float2half_rn(x), __float2half_rn(y), __float2half_rn(z))))
KERNEL(half_less, unsigned(__hlt(__float2half_rn(x), __float2half_rn(y))))
KERNEL(half_max, HALF(__hmax(__float2half_rn(x), __float2half_rn(y))))
KERNEL(bfloat_add, BF16(__hadd(__float2bfloat16_rn(x), __float2bfloat16_rn(y))))
KERNEL(bfloat_fma, BF16(__hfma(__float2bfloat16_rn(x), __float2bfloat16_rn(y), __float2bfloat16_rn(z))))
KERNEL(double_fma, folded(fma(double(x), double(y), double(z) * 1.0000000001)))
KERNEL(double_divide, folded(double(x) / (double(y) * 1.0000000001)))
KERNEL(double_sqrt, folded(sqrt(double(x) * 1.0000000001)))
KERNEL(double_to_float, BITS(float(double(x) * 1.00000006)))
KERNEL(double_to_int, unsigned(__double2int_rn(double(x) * 1.5)))
KERNEL(leading_zeros, unsigned(__clz(u)) | unsigned(__ffs(u)) << 8 | unsigned(__popc(u)) << 16)
KERNEL(reverse, __brev(u))
KERNEL(permute, __byte_perm(u, v, w & 0x7777))
KERNEL(funnel_left, __funnelshift_l(u, v, w))
KERNEL(funnel_right, __funnelshift_rc(u, v, w & 63))
KERNEL(multiply_high, __umulhi(u, v))
KERNEL(multiply_high_signed, unsigned(__mulhi(int(u), int(v))))
KERNEL(wide_product, folded((long long)(int(u)) * int(v) + int(w)))
KERNEL(quotient, unsigned(int(u) / (int(v) | 1)))
KERNEL(modulo, unsigned(int(u) % (int(v) | 1)))
KERNEL(unsigned_quotient, u / (v | 1))
KERNEL(long_quotient, folded(((long long)(u) << 20 | v) / ((long long)(int(w)) | 1)))
KERNEL(shift_left, w < 64 ? u << (w & 31) : u << 31)
KERNEL(shift_right, unsigned(int(u) >> (w & 31)))
KERNEL(dot_bytes, unsigned(__dp4a(int(u), int(v), int(w))))
KERNEL(sum_of_differences, __sad(int(u), int(v), w))
KERNEL(average, unsigned(__hadd(int(u), int(v))) ^ unsigned(__rhadd(int(u), int(v))))
KERNEL(packed_max, __vmaxs2(u, v))
KERNEL(shuffle_up, BITS(__shfl_up_sync(~0u, x, 3)))
KERNEL(shuffle_down, BITS(__shfl_down_sync(~0u, x, 5, 16)))
KERNEL(shuffle_xor, BITS(__shfl_xor_sync(~0u, x, 9)))
KERNEL(shuffle_any, BITS(__shfl_sync(~0u, x, int(w >> 3) & 31, 8)))
KERNEL(ballot, __ballot_sync(~0u, x < y) ^ unsigned(__any_sync(~0u, x == y)) ^ unsigned(__all_sync(~0u, x == x)))
KERNEL(match, __match_any_sync(~0u, u >> 29))
KERNEL(reduce_sum, __reduce_add_sync(~0u, u) ^ __reduce_max_sync(~0u, u) ^ __reduce_xor_sync(~0u, v))
KERNEL(divergent, lane % 4 < 2 ? BITS(__shfl_xor_sync(0x33333333u, x, 1)) : __ballot_sync(0xccccccccu, x < y))
KERNEL(exp_, BITS(expf(x)))
KERNEL(log_, BITS(logf(x)))
KERNEL(sin_, BITS(sinf(x)))
KERNEL(cos_, BITS(cosf(x)))
KERNEL(tanh_, BITS(tanhf(x)))
KERNEL(erf_, BITS(erff(x)))
KERNEL(expm1_, BITS(expm1f(x)))
KERNEL(log1p_, BITS(log1pf(x)))
KERNEL(pow_, BITS(powf(fabsf(x), y)))
KERNEL(cube_root, BITS(cbrtf(x)))
KERNEL(fmod_, BITS(fmodf(x, y)))
KERNEL(half_exp, HALF(hexp(__float2half_rn(x))))
KERNEL(double_exp, folded(exp(double(x) * 0.001)))
KERNEL(approx_exp, BITS(__expf(x)))
KERNEL(approx_exp2, BITS(exp2f(x)))
KERNEL(approx_log, BITS(__logf(fabsf(x))))
KERNEL(approx_log2, BITS(__log2f(fabsf(x))))
KERNEL(approx_sin, BITS(__sinf(x)))
KERNEL(approx_cos, BITS(__cosf(x)))
KERNEL(approx_rsqrt, BITS(rsqrtf(fabsf(x))))
KERNEL(approx_divide, BITS(__fdividef(x, y)))
__device__ float approximate_tanh(float x) { float y; asm("tanh.approx.f32 %0, %1;" : "=f"(y) : "f"(x)); return y; }
__device__ float approximate_reciprocal(float x) { float y; asm("rcp.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x)); return y; }
__device__ float approximate_sqrt(float x) { float y; asm("sqrt.approx.f32 %0, %1;" : "=f"(y) : "f"(x)); return y; }
KERNEL(approx_tanh, BITS(approximate_tanh(x)))
KERNEL(approx_reciprocal, BITS(approximate_reciprocal(x)))
KERNEL(approx_sqrt, BITS(approximate_sqrt(fabsf(x))))

// Tensor cores and asynchronous copies. Operands are those of other threads of the block too, so that a block's inputs
// stay of one kind. Of several result registers each warp writes one.
#define OTHER(from, number) __float_as_uint(from[blockIdx.x * 256 + (threadIdx.x + 32 * (number)) % 256])
__device__ unsigned chosen(const unsigned* registers, int count) { return registers[threadIdx.x / 32 % count]; }
template <int kind> __device__ unsigned operand(const float* from, int number) {
    const float low = __uint_as_float(OTHER(from, 2 * number)), high = __uint_as_float(OTHER(from, 2 * number + 1));
    if (kind == 0) return OTHER(from, number);
    if (kind == 1) return HALF(__float2half_rn(low)) | HALF(__float2half_rn(high)) << 16;
    return BF16(__float2bfloat16_rn(low)) | BF16(__float2bfloat16_rn(high)) << 16;
}
__device__ unsigned tensor_tf32_k4_(const float* xs, const float* ys, const float* zs) {
    unsigned d[4];
    for (int n = 0; n < 4; n++) d[n] = operand<0>(zs, n);
    asm("mma.sync.aligned.m16n8k4.row.col.f32.tf32.tf32.f32 {%0, %1, %2, %3}, {%4, %5}, {%6}, {%0, %1, %2, %3};"
        : "+r"(d[0]), "+r"(d[1]), "+r"(d[2]), "+r"(d[3]) : "r"(operand<0>(xs, 0)), "r"(operand<0>(xs, 1)), "r"(operand<0>(ys, 0)));
    return chosen(d, 4);
}
KERNEL(tensor_tf32_k4, tensor_tf32_k4_(xs, ys, zs))
__device__ unsigned tensor_tf32_k8_(const float* xs, const float* ys, const float* zs) {
    unsigned d[4];
    for (int n = 0; n < 4; n++) d[n] = operand<0>(zs, n);
    asm("mma.sync.aligned.m16n8k8.row.col.f32.tf32.tf32.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
        : "+r"(d[0]), "+r"(d[1]), "+r"(d[2]), "+r"(d[3]) : "r"(operand<0>(xs, 0)), "r"(operand<0>(xs, 1)), "r"(operand<0>(xs, 2)), "r"(operand<0>(xs, 3)), "r"(operand<0>(ys, 0)), "r"(operand<0>(ys, 1)));
    return chosen(d, 4);
}
KERNEL(tensor_tf32_k8, tensor_tf32_k8_(xs, ys, zs))
__device__ unsigned tensor_f16_k8_(const float* xs, const float* ys, const float* zs) {
    unsigned d[4];
    for (int n = 0; n < 4; n++) d[n] = operand<0>(zs, n);
    asm("mma.sync.aligned.m16n8k8.row.col.f32.f16.f16.f32 {%0, %1, %2, %3}, {%4, %5}, {%6}, {%0, %1, %2, %3};"
        : "+r"(d[0]), "+r"(d[1]), "+r"(d[2]), "+r"(d[3]) : "r"(operand<1>(xs, 0)), "r"(operand<1>(xs, 1)), "r"(operand<1>(ys, 0)));
    return chosen(d, 4);
}
KERNEL(tensor_f16_k8, tensor_f16_k8_(xs, ys, zs))
__device__ unsigned tensor_f16_k16_(const float* xs, const float* ys, const float* zs) {
    unsigned d[4];
    for (int n = 0; n < 4; n++) d[n] = operand<0>(zs, n);
    asm("mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
        : "+r"(d[0]), "+r"(d[1]), "+r"(d[2]), "+r"(d[3]) : "r"(operand<1>(xs, 0)), "r"(operand<1>(xs, 1)), "r"(operand<1>(xs, 2)), "r"(operand<1>(xs, 3)), "r"(operand<1>(ys, 0)), "r"(operand<1>(ys, 1)));
    return chosen(d, 4);
}
KERNEL(tensor_f16_k16, tensor_f16_k16_(xs, ys, zs))
__device__ unsigned tensor_bf16_k8_(const float* xs, const float* ys, const float* zs) {
    unsigned d[4];
    for (int n = 0; n < 4; n++) d[n] = operand<0>(zs, n);
    asm("mma.sync.aligned.m16n8k8.row.col.f32.bf16.bf16.f32 {%0, %1, %2, %3}, {%4, %5}, {%6}, {%0, %1, %2, %3};"
        : "+r"(d[0]), "+r"(d[1]), "+r"(d[2]), "+r"(d[3]) : "r"(operand<2>(xs, 0)), "r"(operand<2>(xs, 1)), "r"(operand<2>(ys, 0)));
    return chosen(d, 4);
}
KERNEL(tensor_bf16_k8, tensor_bf16_k8_(xs, ys, zs))
__device__ unsigned tensor_bf16_k16_(const float* xs, const float* ys, const float* zs) {
    unsigned d[4];
    for (int n = 0; n < 4; n++) d[n] = operand<0>(zs, n);
    asm("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
        : "+r"(d[0]), "+r"(d[1]), "+r"(d[2]), "+r"(d[3]) : "r"(operand<2>(xs, 0)), "r"(operand<2>(xs, 1)), "r"(operand<2>(xs, 2)), "r"(operand<2>(xs, 3)), "r"(operand<2>(ys, 0)), "r"(operand<2>(ys, 1)));
    return chosen(d, 4);
}
KERNEL(tensor_bf16_k16, tensor_bf16_k16_(xs, ys, zs))
__device__ unsigned tensor_f16_k8_f16_(const float* xs, const float* ys, const float* zs) {
    unsigned d[2];
    for (int n = 0; n < 2; n++) d[n] = operand<1>(zs, n);
    asm("mma.sync.aligned.m16n8k8.row.col.f16.f16.f16.f16 {%0, %1}, {%2, %3}, {%4}, {%0, %1};"
        : "+r"(d[0]), "+r"(d[1]) : "r"(operand<1>(xs, 0)), "r"(operand<1>(xs, 1)), "r"(operand<1>(ys, 0)));
    return chosen(d, 2);
}
KERNEL(tensor_f16_k8_f16, tensor_f16_k8_f16_(xs, ys, zs))
__device__ unsigned tensor_f16_k16_f16_(const float* xs, const float* ys, const float* zs) {
    unsigned d[2];
    for (int n = 0; n < 2; n++) d[n] = operand<1>(zs, n);
    asm("mma.sync.aligned.m16n8k16.row.col.f16.f16.f16.f16 {%0, %1}, {%2, %3, %4, %5}, {%6, %7}, {%0, %1};"
        : "+r"(d[0]), "+r"(d[1]) : "r"(operand<1>(xs, 0)), "r"(operand<1>(xs, 1)), "r"(operand<1>(xs, 2)), "r"(operand<1>(xs, 3)), "r"(operand<1>(ys, 0)), "r"(operand<1>(ys, 1)));
    return chosen(d, 2);
}
KERNEL(tensor_f16_k16_f16, tensor_f16_k16_f16_(xs, ys, zs))
__device__ unsigned rounded_to_tf32(float x) { unsigned r; asm("cvt.rna.tf32.f32 %0, %1;" : "=r"(r) : "f"(x)); return r; }
KERNEL(to_tf32, rounded_to_tf32(x))
template <int count, bool transposed> __device__ unsigned loaded(const float* xs) {
    __shared__ uint4 rows[8][32];
    const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
    rows[warp][lane] = make_uint4(OTHER(xs, 0), OTHER(xs, 1), OTHER(xs, 2), OTHER(xs, 3));
    __syncthreads();
    const unsigned from = __cvta_generic_to_shared(&rows[warp][(lane * 5 + 3) % 32]);
    unsigned r[4];
    if (count == 1 && !transposed)
        asm volatile("ldmatrix.sync.aligned.m8n8.x1.shared.b16 {%0}, [%1];"
            : "=r"(r[0]) : "r"(from) : "memory");
    if (count == 1 && transposed)
        asm volatile("ldmatrix.sync.aligned.m8n8.x1.trans.shared.b16 {%0}, [%1];"
            : "=r"(r[0]) : "r"(from) : "memory");
    if (count == 2 && !transposed)
        asm volatile("ldmatrix.sync.aligned.m8n8.x2.shared.b16 {%0, %1}, [%2];"
            : "=r"(r[0]), "=r"(r[1]) : "r"(from) : "memory");
    if (count == 2 && transposed)
        asm volatile("ldmatrix.sync.aligned.m8n8.x2.trans.shared.b16 {%0, %1}, [%2];"
            : "=r"(r[0]), "=r"(r[1]) : "r"(from) : "memory");
    if (count == 4 && !transposed)
        asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
            : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3]) : "r"(from) : "memory");
    if (count == 4 && transposed)
        asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];"
            : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3]) : "r"(from) : "memory");
    return chosen(r, count);
}
KERNEL(load_matrix_1, (loaded<1, false>(xs)))
KERNEL(load_matrix_2, (loaded<2, false>(xs)))
KERNEL(load_matrix_4, (loaded<4, false>(xs)))
KERNEL(load_matrix_1_transposed, (loaded<1, true>(xs)))
KERNEL(load_matrix_2_transposed, (loaded<2, true>(xs)))
KERNEL(load_matrix_4_transposed, (loaded<4, true>(xs)))
template <int size> __device__ unsigned copied(const float* xs) {
    __shared__ __align__(16) unsigned s[256];
    const int words = size / 4, t = threadIdx.x;
    const unsigned to = __cvta_generic_to_shared(s + t * words);
    if (t < 256 / words)
        asm volatile("cp.async.ca.shared.global [%0], [%1], %2, %3;"
            :: "r"(to), "l"(xs + blockIdx.x * 256 + t * words), "n"(size), "r"(size - t % (words + 1) * 4) : "memory");
    asm volatile("cp.async.commit_group;\n\tcp.async.wait_group 0;" ::: "memory");
    __syncthreads();
    return s[255 - t];
}
KERNEL(copy_async_4, copied<4>(xs))
KERNEL(copy_async_8, copied<8>(xs))
KERNEL(copy_async_16, copied<16>(xs))

// Products of warpgroups, 64 by 72. All of shared memory holds elements, so that a descriptor always leads to some. Each
// warp of each block writes another register.
#define RESULTS "{%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, %16, %17, " \
    "%18, %19, %20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31, %32, %33, %34, %35}, "
#define TAKEN(n) "+r"(d[n]), "+r"(d[n + 1]), "+r"(d[n + 2]), "+r"(d[n + 3]), "+r"(d[n + 4]), "+r"(d[n + 5])
#define ALL_TAKEN TAKEN(0), TAKEN(6), TAKEN(12), TAKEN(18), TAKEN(24), TAKEN(30)
#define SHARED(type, tail, ...)                                                                                        \
    asm volatile("wgmma.mma_async.sync.aligned.m64n72" type RESULTS "%36, %37, 1, 1, 1" tail ";"                       \
        : ALL_TAKEN : "l"(left), "l"(right) __VA_ARGS__ : "memory")
#define HELD(type, tail, ...)                                                                                          \
    asm volatile("wgmma.mma_async.sync.aligned.m64n72" type RESULTS "{%36, %37, %38, %39}, %40, 1, 1, 1" tail ";"      \
        : ALL_TAKEN : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(right) __VA_ARGS__ : "memory")
template <int width, bool transposed, int rows> __device__ unsigned long long described(const void* p) {
    const unsigned long long lead = transposed ? width ? 24 * width : 16 * rows + 128 : width ? 16 : 128;
    const unsigned long long stride = width ? 8 * width : transposed ? 128 : 256;
    const unsigned long long mode = width == 128 ? 1 : width == 64 ? 2 : width == 32 ? 3 : 0;
    // The second step along k where a row holds more than one.
    const unsigned start = __cvta_generic_to_shared(p) + (!transposed && width > 32 ? 32 : 0);
    return (start & 0x3ffff) >> 4 | lead >> 4 << 16 | stride >> 4 << 32 | mode << 62;
}
template <int kind, int width, bool transposed, bool held>
__device__ unsigned multiplied(const float* xs, const float* ys, const float* zs) {
    __shared__ __align__(1024) unsigned s[2][4096];
    const int t = threadIdx.x;
    for (int j = 0; j < 16; j++) {
        s[0][t + 256 * j] = operand<kind>(xs, j);
        s[1][t + 256 * j] = operand<kind>(ys, j);
    }
    unsigned a[4], d[36];
    for (int n = 0; n < 4; n++) a[n] = operand<kind>(xs, n);
    for (int n = 0; n < 36; n++) d[n] = operand<0>(zs, n);
    const unsigned long long left = described<width, transposed, 64>(s[0] + t / 128 * 2048);
    const unsigned long long right = described<width, transposed, 72>(s[1]);
    asm volatile("fence.proxy.async.shared::cta;" ::: "memory");
    __syncthreads();
    asm volatile("wgmma.fence.sync.aligned;" ::: "memory");
    if (kind == 0 && !held) SHARED("k8.f32.tf32.tf32 ", "");
    if (kind == 1 && !held) SHARED("k16.f32.f16.f16 ", ", %38, %38", , "n"(int(transposed)));
    if (kind == 2 && !held) SHARED("k16.f32.bf16.bf16 ", ", %38, %38", , "n"(int(transposed)));
    if (kind == 0 && held) HELD("k8.f32.tf32.tf32 ", "");
    if (kind == 1 && held) HELD("k16.f32.f16.f16 ", ", %41", , "n"(int(transposed)));
    if (kind == 2 && held) HELD("k16.f32.bf16.bf16 ", ", %41", , "n"(int(transposed)));
    asm volatile("wgmma.commit_group.sync.aligned;\n\twgmma.wait_group.sync.aligned 0;" ::: "memory");
    for (int n = 0; n < 36; n++) asm volatile("" : "+r"(d[n]) :: "memory");
    unsigned found = 0;
    for (int n = 0; n < 36; n++) found = n == (t / 32 * 9 + blockIdx.x) % 36 ? d[n] : found;
    return found;
}
KERNEL(tensor_wgmma_bf16_k16_swizzled_0, (multiplied<2, 0, false, false>(xs, ys, zs)))
KERNEL(tensor_wgmma_bf16_k16_swizzled_32, (multiplied<2, 32, false, false>(xs, ys, zs)))
KERNEL(tensor_wgmma_bf16_k16_swizzled_64, (multiplied<2, 64, false, false>(xs, ys, zs)))
KERNEL(tensor_wgmma_bf16_k16_swizzled_128, (multiplied<2, 128, false, false>(xs, ys, zs)))
KERNEL(tensor_wgmma_tf32_k8_swizzled_0, (multiplied<0, 0, false, false>(xs, ys, zs)))
KERNEL(tensor_wgmma_tf32_k8_swizzled_32, (multiplied<0, 32, false, false>(xs, ys, zs)))
KERNEL(tensor_wgmma_tf32_k8_swizzled_64, (multiplied<0, 64, false, false>(xs, ys, zs)))
KERNEL(tensor_wgmma_tf32_k8_swizzled_128, (multiplied<0, 128, false, false>(xs, ys, zs)))
KERNEL(tensor_wgmma_f16_k16_swizzled_0, (multiplied<1, 0, false, false>(xs, ys, zs)))
KERNEL(tensor_wgmma_f16_k16_swizzled_32, (multiplied<1, 32, false, false>(xs, ys, zs)))
KERNEL(tensor_wgmma_f16_k16_swizzled_64, (multiplied<1, 64, false, false>(xs, ys, zs)))
KERNEL(tensor_wgmma_f16_k16_swizzled_128, (multiplied<1, 128, false, false>(xs, ys, zs)))
KERNEL(tensor_wgmma_bf16_k16_transposed_0, (multiplied<2, 0, true, false>(xs, ys, zs)))
KERNEL(tensor_wgmma_bf16_k16_transposed_32, (multiplied<2, 32, true, false>(xs, ys, zs)))
KERNEL(tensor_wgmma_bf16_k16_transposed_64, (multiplied<2, 64, true, false>(xs, ys, zs)))
KERNEL(tensor_wgmma_bf16_k16_transposed_128, (multiplied<2, 128, true, false>(xs, ys, zs)))
KERNEL(tensor_wgmma_f16_k16_transposed_0, (multiplied<1, 0, true, false>(xs, ys, zs)))
KERNEL(tensor_wgmma_f16_k16_transposed_32, (multiplied<1, 32, true, false>(xs, ys, zs)))
KERNEL(tensor_wgmma_f16_k16_transposed_64, (multiplied<1, 64, true, false>(xs, ys, zs)))
KERNEL(tensor_wgmma_f16_k16_transposed_128, (multiplied<1, 128, true, false>(xs, ys, zs)))
KERNEL(tensor_wgmma_tf32_k8_held, (multiplied<0, 64, false, true>(xs, ys, zs)))
KERNEL(tensor_wgmma_f16_k16_held, (multiplied<1, 128, false, true>(xs, ys, zs)))
KERNEL(tensor_wgmma_bf16_k16_held, (multiplied<2, 32, true, true>(xs, ys, zs)))
