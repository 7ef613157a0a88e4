constexpr int LANES = 16;  // of a head: 128 elements are a vector of each half for every lane

__device__ float squares_of(float4 v) { return v.x * v.x + v.y * v.y + v.z * v.z + v.w * v.w; }
__device__ float4 times(float4 a, float4 b) { return make_float4(a.x * b.x, a.y * b.y, a.z * b.z, a.w * b.w); }
__device__ float4 scaled(float4 a, float by) { return make_float4(a.x * by, a.y * by, a.z * by, a.w * by); }
__device__ float4 sum(float4 a, float4 b) { return make_float4(a.x + b.x, a.y + b.y, a.z + b.z, a.w + b.w); }

// What half a warp reads of HEADS neighbouring heads.
struct Heads {
  float4 low[HEADS], high[HEADS];

  __device__ void load(const float4* from, bool there) {
    const float4 nothing = make_float4(0.0f, 0.0f, 0.0f, 0.0f);
    #pragma unroll
    for (int head = 0; head < HEADS; head++) {
      low[head] = there ? __ldcs(from + head * 2 * LANES) : nothing;
      high[head] = there ? __ldcs(from + head * 2 * LANES + LANES) : nothing;
    }
  }
};

// Half a warp does the same HEADS heads of the same step in all sequences, and the next sequence is on its way meanwhile.
extern "C" __global__ void __launch_bounds__(BLOCK)
normalise_and_turn(const float4* __restrict__ x, const float4* __restrict__ cos, const float4* __restrict__ sin,
                   const float4* __restrict__ gain, float4* __restrict__ out, int groups, int groups_of_step, int batch) {
  const int lane = threadIdx.x % LANES;
  const int group = blockIdx.x * (BLOCK / LANES) + threadIdx.x / LANES;
  const bool mine = group < groups;  // all lanes of a warp take part in the exchange
  const int64_t sequence = (int64_t)groups * HEADS * 2 * LANES;
  int64_t begin = (int64_t)group * HEADS * 2 * LANES + lane;
  Heads next;
  next.load(x + begin, mine);
  const int64_t angle = mine ? group / groups_of_step * 2 * LANES + lane : lane;
  // The gain goes into cosine and sine, and the scale is all that is left to do for each head.
  const float4 low_gain = gain[lane], high_gain = gain[lane + LANES];
  const float4 low_cos = times(cos[angle], low_gain), low_sin = times(sin[angle], scaled(high_gain, -1.0f));
  const float4 high_cos = times(cos[angle + LANES], high_gain), high_sin = times(sin[angle + LANES], low_gain);
  for (int number = 0; number < batch; number++, begin += sequence) {
    const Heads now = next;
    next.load(x + begin + sequence, mine && number + 1 < batch);
    #pragma unroll
    for (int head = 0; head < HEADS; head++) {
      float squares = squares_of(now.low[head]) + squares_of(now.high[head]);
      #pragma unroll
      for (int bit = LANES / 2; bit > 0; bit /= 2) squares += __shfl_xor_sync(0xffffffffu, squares, bit);
      const float scale = rsqrtf(squares / (8 * LANES) + 1e-6f);
      if (!mine) continue;
      float4* to = out + begin + head * 2 * LANES;
      __stcs(to, scaled(sum(times(now.low[head], low_cos), times(now.high[head], low_sin)), scale));
      __stcs(to + LANES, scaled(sum(times(now.high[head], high_cos), times(now.low[head], high_sin)), scale));
    }
  }
}
