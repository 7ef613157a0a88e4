constexpr unsigned ALL = 0xffffffffu;

__device__ void add(float4& sum, float weight, float4 row) {
  sum.x = fmaf(weight, row.x, sum.x);
  sum.y = fmaf(weight, row.y, sum.y);
  sum.z = fmaf(weight, row.z, sum.z);
  sum.w = fmaf(weight, row.w, sum.w);
}

// Warp = bag, lane = four columns, so rows are 128 long. Bags have a multiple of 32 entries.
extern "C" __global__ void __launch_bounds__(BLOCK)
add_rows(const int64_t* __restrict__ indices, const float* __restrict__ weights, const float4* __restrict__ table,
         float4* __restrict__ out, int bags, int entries) {
  const int lane = threadIdx.x % 32;
  const int64_t bag = blockIdx.x * (BLOCK / 32) + threadIdx.x / 32;
  if (bag >= bags) return;
  float4 sum = make_float4(0.0f, 0.0f, 0.0f, 0.0f);
  for (int64_t begin = bag * entries; begin < (bag + 1) * entries; begin += 32) {
    const int my_row = (int)__ldcs(indices + begin + lane);
    const float my_weight = __ldcs(weights + begin + lane);
    #pragma unroll
    for (int first = 0; first < 32; first += UNROLL) {
      float4 rows[UNROLL];
      #pragma unroll
      for (int i = 0; i < UNROLL; i++) rows[i] = table[(int64_t)__shfl_sync(ALL, my_row, first + i) * 32 + lane];
      #pragma unroll
      for (int i = 0; i < UNROLL; i++) add(sum, __shfl_sync(ALL, my_weight, first + i), rows[i]);
    }
  }
  __stcs(out + bag * 32 + lane, sum);
}
