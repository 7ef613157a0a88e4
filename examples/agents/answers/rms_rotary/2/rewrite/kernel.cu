constexpr int LANES = 16;  // of a head: 128 elements are a vector of each half for every lane

__device__ float squares_of(float4 v) { return v.x * v.x + v.y * v.y + v.z * v.z + v.w * v.w; }
__device__ float4 times(float4 a, float4 b) { return make_float4(a.x * b.x, a.y * b.y, a.z * b.z, a.w * b.w); }
__device__ float4 scaled(float4 a, float by) { return make_float4(a.x * by, a.y * by, a.z * by, a.w * by); }
__device__ float4 sum(float4 a, float4 b) { return make_float4(a.x + b.x, a.y + b.y, a.z + b.z, a.w + b.w); }

// Half a warp does HEADS neighbouring heads of one step, of which every step has a multiple.
extern "C" __global__ void __launch_bounds__(BLOCK)
normalise_and_turn(const float4* __restrict__ x, const float4* __restrict__ cos, const float4* __restrict__ sin,
                   const float4* __restrict__ gain, float4* __restrict__ out, int groups, int groups_of_step, int steps) {
  const int lane = threadIdx.x % LANES;
  const int64_t group = blockIdx.x * (BLOCK / LANES) + threadIdx.x / LANES;
  const bool mine = group < groups;  // all lanes of a warp take part in the exchange
  const float4 nothing = make_float4(0.0f, 0.0f, 0.0f, 0.0f);
  const int64_t begin = group * HEADS * 2 * LANES + lane;
  float4 low[HEADS], high[HEADS];
  #pragma unroll
  for (int head = 0; head < HEADS; head++) {
    low[head] = mine ? __ldcs(x + begin + head * 2 * LANES) : nothing;
    high[head] = mine ? __ldcs(x + begin + head * 2 * LANES + LANES) : nothing;
  }
  const int64_t angle = mine ? group / groups_of_step % steps * 2 * LANES + lane : lane;
  // The gain goes into cosine and sine, and the scale is all that is left to do for each head.
  const float4 low_gain = gain[lane], high_gain = gain[lane + LANES];
  const float4 low_cos = times(cos[angle], low_gain), low_sin = times(sin[angle], scaled(high_gain, -1.0f));
  const float4 high_cos = times(cos[angle + LANES], high_gain), high_sin = times(sin[angle + LANES], low_gain);
  #pragma unroll
  for (int head = 0; head < HEADS; head++) {
    float squares = squares_of(low[head]) + squares_of(high[head]);
    #pragma unroll
    for (int bit = LANES / 2; bit > 0; bit /= 2) squares += __shfl_xor_sync(0xffffffffu, squares, bit);
    const float scale = rsqrtf(squares / (8 * LANES) + 1e-6f);
    if (!mine) continue;
    float4* to = out + begin + head * 2 * LANES;
    __stcs(to, scaled(sum(times(low[head], low_cos), times(high[head], low_sin)), scale));
    __stcs(to + LANES, scaled(sum(times(high[head], high_cos), times(low[head], high_sin)), scale));
  }
}
