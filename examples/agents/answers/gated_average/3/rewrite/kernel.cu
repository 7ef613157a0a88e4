constexpr float LEAST = 1e-6f;
constexpr int TILE = WARPS * STEPS;  // steps that a block does at once

__device__ float weight_of(float gate) { return __fdividef(1.0f, 1.0f + __expf(-gate)); }

// What one thread reads of a tile: STEPS steps of one channel.
struct Stretch {
  float x[STEPS], gate[STEPS];

  __device__ void load(const float* from_x, const float* from_gate, int left, int channels) {
    #pragma unroll
    for (int i = 0; i < STEPS; i++) {
      gate[i] = i < left ? __ldcs(from_gate + i * channels) : -INFINITY;
      x[i] = i < left ? __ldcs(from_x + i * channels) : 0.0f;
    }
  }
};

// Block (channels, batch): lane = channel, warp = stretch of STEPS steps. Every value is read once, a tile ahead.
extern "C" __global__ void __launch_bounds__(WARPS * 32)
running_average(const float* __restrict__ x, const float* __restrict__ gate, float* __restrict__ out, int steps, int channels) {
  __shared__ float2 of_warps[2][WARPS][32];
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
  const int channel = blockIdx.x * 32 + lane;
  const int last = channel < channels ? steps : 0;  // a lane without a channel has no steps
  const int64_t batch = (int64_t)blockIdx.y * steps * channels + channel;
  float2 carry = make_float2(0.0f, 0.0f);  // sums of all tiles so far; the same in every warp

  Stretch next;
  int begin = warp * STEPS;
  int64_t at = batch + (int64_t)begin * channels;
  next.load(x + at, gate + at, last - begin, channels);
  int side = 0;  // neighbouring tiles use different halves of shared memory, so one barrier a tile is enough
  for (int tile = 0; tile < steps; tile += TILE, side ^= 1) {
    const Stretch now = next;
    const int64_t ahead = at + (int64_t)TILE * channels;
    next.load(x + ahead, gate + ahead, last - begin - TILE, channels);

    float sums[STEPS], weights[STEPS];
    #pragma unroll
    for (int i = 0; i < STEPS; i++) {
      const float weight = weight_of(now.gate[i]);
      weights[i] = i > 0 ? weights[i - 1] + weight : weight;
      sums[i] = i > 0 ? fmaf(weight, now.x[i], sums[i - 1]) : weight * now.x[i];
    }
    of_warps[side][warp][lane] = make_float2(sums[STEPS - 1], weights[STEPS - 1]);
    __syncthreads();
    float2 before = carry;
    for (int other = 0; other < WARPS; other++) {
      const float2 all = of_warps[side][other][lane];
      if (other < warp) before = make_float2(before.x + all.x, before.y + all.y);
      carry = make_float2(carry.x + all.x, carry.y + all.y);
    }
    #pragma unroll
    for (int i = 0; i < STEPS; i++) {
      if (i < last - begin) __stcs(out + at + i * channels, (sums[i] + before.x) / (weights[i] + before.y + LEAST));
    }
    begin += TILE;
    at = ahead;
  }
}
