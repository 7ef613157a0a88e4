constexpr unsigned ALL = 0xffffffffu;
constexpr int LANES = 16;  // of a bag: rows of 128 are two vectors for each lane

__device__ void add(float4& sum, float weight, float4 row) {
  sum.x = fmaf(weight, row.x, sum.x);
  sum.y = fmaf(weight, row.y, sum.y);
  sum.z = fmaf(weight, row.z, sum.z);
  sum.w = fmaf(weight, row.w, sum.w);
}

// Half a warp = bag. Bags have a multiple of 16 entries; there is an even number of them, so that no half warp is alone.
extern "C" __global__ void __launch_bounds__(BLOCK)
add_rows(const int64_t* __restrict__ indices, const float* __restrict__ weights, const float4* __restrict__ table,
         float4* __restrict__ out, int bags, int entries) {
  const int lane = threadIdx.x % LANES;
  const int64_t bag = blockIdx.x * (BLOCK / LANES) + threadIdx.x / LANES;
  if (bag >= bags) return;
  float4 left_sum = make_float4(0.0f, 0.0f, 0.0f, 0.0f), right_sum = left_sum;
  for (int64_t begin = bag * entries; begin < (bag + 1) * entries; begin += LANES) {
    const int my_row = (int)__ldcs(indices + begin + lane);
    const float my_weight = __ldcs(weights + begin + lane);
    #pragma unroll
    for (int first = 0; first < LANES; first += UNROLL) {
      float4 left[UNROLL], right[UNROLL];
      #pragma unroll
      for (int i = 0; i < UNROLL; i++) {
        const float4* row = table + (int64_t)__shfl_sync(ALL, my_row, first + i, LANES) * 32 + lane;
        left[i] = row[0];
        right[i] = row[LANES];
      }
      #pragma unroll
      for (int i = 0; i < UNROLL; i++) {
        const float weight = __shfl_sync(ALL, my_weight, first + i, LANES);
        add(left_sum, weight, left[i]);
        add(right_sum, weight, right[i]);
      }
    }
  }
  __stcs(out + bag * 32 + lane, left_sum);
  __stcs(out + bag * 32 + LANES + lane, right_sum);
}
