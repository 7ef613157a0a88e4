constexpr int LANES = 16;  // of a head: 128 elements are a vector of each half for every lane

__device__ float squares_of(float4 v) { return v.x * v.x + v.y * v.y + v.z * v.z + v.w * v.w; }
__device__ float4 times(float4 a, float4 b) { return make_float4(a.x * b.x, a.y * b.y, a.z * b.z, a.w * b.w); }
__device__ float4 scaled(float4 a, float by) { return make_float4(a.x * by, a.y * by, a.z * by, a.w * by); }
__device__ float4 sum(float4 a, float4 b) { return make_float4(a.x + b.x, a.y + b.y, a.z + b.z, a.w + b.w); }

extern "C" __global__ void __launch_bounds__(BLOCK)
normalise_and_turn(const float4* __restrict__ x, const float4* __restrict__ cos, const float4* __restrict__ sin,
                   const float4* __restrict__ gain, float4* __restrict__ out, int rows, int heads, int steps) {
  const int lane = threadIdx.x % LANES;
  const int64_t row = blockIdx.x * (BLOCK / LANES) + threadIdx.x / LANES;
  const bool mine = row < rows;  // all lanes of a warp take part in the exchange
  const float4 nothing = make_float4(0.0f, 0.0f, 0.0f, 0.0f);
  const int64_t at = row * 2 * LANES + lane;
  float4 low = mine ? x[at] : nothing, high = mine ? x[at + LANES] : nothing;
  float squares = squares_of(low) + squares_of(high);
  for (int bit = LANES / 2; bit > 0; bit /= 2) squares += __shfl_xor_sync(0xffffffffu, squares, bit);
  if (!mine) return;
  const float scale = 1.0f / sqrtf(squares / (8 * LANES) + 1e-6f);
  low = times(scaled(low, scale), gain[lane]);
  high = times(scaled(high, scale), gain[lane + LANES]);
  const int64_t angle = row / heads % steps * 2 * LANES + lane;
  out[at] = sum(times(low, cos[angle]), times(scaled(high, -1.0f), sin[angle]));
  out[at + LANES] = sum(times(high, cos[angle + LANES]), times(low, sin[angle + LANES]));
}
