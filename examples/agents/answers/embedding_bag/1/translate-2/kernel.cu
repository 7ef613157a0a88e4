// Warp = bag, lane = four columns, so rows are 128 long.
extern "C" __global__ void __launch_bounds__(BLOCK)
add_rows(const int64_t* __restrict__ indices, const float* __restrict__ weights, const float4* __restrict__ table,
         float4* __restrict__ out, int bags, int entries) {
  const int lane = threadIdx.x % 32;
  const int64_t bag = blockIdx.x * (BLOCK / 32) + threadIdx.x / 32;
  if (bag >= bags) return;
  float4 sum = make_float4(0.0f, 0.0f, 0.0f, 0.0f);
  for (int entry = 0; entry < entries; entry++) {
    const float4 row = table[indices[bag * entries + entry] * 32 + lane];
    const float weight = weights[bag * entries + entry];
    sum = make_float4(sum.x + weight * row.x, sum.y + weight * row.y, sum.z + weight * row.z, sum.w + weight * row.w);
  }
  out[bag * 32 + lane] = sum;
}
