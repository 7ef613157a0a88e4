constexpr float LEAST = 1e-6f;
constexpr int TILE = WARPS * STEPS;  // steps that a block does at once

__device__ float weight_of(float gate) { return 1.0f / (1.0f + __expf(-gate)); }

// Block (channels, batch): lane = channel, warp = stretch of STEPS steps. Every value is read once.
extern "C" __global__ void __launch_bounds__(WARPS * 32)
running_average(const float* __restrict__ x, const float* __restrict__ gate, float* __restrict__ out, int steps, int channels) {
  __shared__ float2 of_warps[2][WARPS][32];
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
  const int channel = blockIdx.x * 32 + lane;
  const bool mine = channel < channels;
  const int64_t batch = (int64_t)blockIdx.y * steps * channels + channel;
  float2 carry = make_float2(0.0f, 0.0f);  // sums of all tiles so far; the same in every warp

  int side = 0;  // neighbouring tiles use different halves of shared memory, so one barrier a tile is enough
  for (int tile = 0; tile < steps; tile += TILE, side ^= 1) {
    const int begin = tile + warp * STEPS;
    float sums[STEPS], weights[STEPS];
    #pragma unroll
    for (int i = 0; i < STEPS; i++) {
      const bool there = mine && begin + i < steps;
      const int64_t at = batch + (int64_t)(begin + i) * channels;
      weights[i] = there ? __ldcs(gate + at) : -INFINITY;
      sums[i] = there ? __ldcs(x + at) : 0.0f;
    }
    #pragma unroll
    for (int i = 0; i < STEPS; i++) {
      weights[i] = weight_of(weights[i]);
      sums[i] *= weights[i];
      if (i > 0) {
        weights[i] += weights[i - 1];
        sums[i] += sums[i - 1];
      }
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
      const int64_t at = batch + (int64_t)(begin + i) * channels;
      if (mine && begin + i < steps) __stcs(out + at, (sums[i] + before.x) / (weights[i] + before.y + LEAST));
    }
  }
}
