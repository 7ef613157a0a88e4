constexpr float PENALTY = 1e-4f;
constexpr float LOG2_E = 1.4426950408889634f;

__device__ float exponential(float x) { return exp2f(x * LOG2_E); }

// A sum of exponentials relative to the greatest exponent seen so far.
struct Sum {
  float greatest, total;

  __device__ void merge(float other_greatest, float other_total) {
    const float next = fmaxf(greatest, other_greatest);
    total = total * exponential(greatest - next) + other_total * exponential(other_greatest - next);
    greatest = next;
  }
};

__device__ Sum of_warp(Sum mine) {
  for (int bit = 16; bit > 0; bit /= 2) {
    const float greatest = __shfl_xor_sync(0xffffffffu, mine.greatest, bit);
    const float total = __shfl_xor_sync(0xffffffffu, mine.total, bit);
    mine.merge(greatest, total);
  }
  return mine;
}

// The loss of one row. Rows are multiples of four long, so that every one of them begins at a vector.
extern "C" __global__ void __launch_bounds__(BLOCK)
row_losses(const float* __restrict__ logits, const int64_t* __restrict__ targets, float* __restrict__ losses, int vectors) {
  __shared__ float greatest[BLOCK / 32], total[BLOCK / 32];
  const float4* row = reinterpret_cast<const float4*>(logits) + (int64_t)blockIdx.x * vectors;
  Sum mine = {-FLT_MAX, 0.0f};
  for (int begin = threadIdx.x; begin < vectors; begin += BLOCK * UNROLL) {
    float4 x[UNROLL];
    float next = mine.greatest;
    #pragma unroll
    for (int i = 0; i < UNROLL; i++) {
      const int at = begin + i * BLOCK;
      x[i] = at < vectors ? __ldcs(row + at) : make_float4(-INFINITY, -INFINITY, -INFINITY, -INFINITY);
    }
    #pragma unroll
    for (int i = 0; i < UNROLL; i++) next = fmaxf(next, fmaxf(fmaxf(x[i].x, x[i].y), fmaxf(x[i].z, x[i].w)));
    float sum = mine.total * exponential(mine.greatest - next);
    #pragma unroll
    for (int i = 0; i < UNROLL; i++) {
      sum += (exponential(x[i].x - next) + exponential(x[i].y - next)) + (exponential(x[i].z - next) + exponential(x[i].w - next));
    }
    mine = {next, sum};
  }
  mine = of_warp(mine);
  if (threadIdx.x % 32 == 0) {
    greatest[threadIdx.x / 32] = mine.greatest;
    total[threadIdx.x / 32] = mine.total;
  }
  __syncthreads();
  if (threadIdx.x == 0) {
    for (int warp = 1; warp < BLOCK / 32; warp++) mine.merge(greatest[warp], total[warp]);
    const float denominator = mine.greatest + logf(mine.total);
    const float right = reinterpret_cast<const float*>(row)[targets[blockIdx.x]];
    losses[blockIdx.x] = denominator - right + PENALTY * denominator * denominator;
  }
}

// One block adds up all rows.
extern "C" __global__ void __launch_bounds__(1024) mean(const float* __restrict__ losses, float* __restrict__ out, int rows) {
  __shared__ float of_warps[32];
  float total = 0.0f;
  for (int row = threadIdx.x; row < rows; row += 1024) total += losses[row];
  for (int bit = 16; bit > 0; bit /= 2) total += __shfl_xor_sync(0xffffffffu, total, bit);
  if (threadIdx.x % 32 == 0) of_warps[threadIdx.x / 32] = total;
  __syncthreads();
  if (threadIdx.x < 32) {
    total = of_warps[threadIdx.x];
    for (int bit = 16; bit > 0; bit /= 2) total += __shfl_xor_sync(0xffffffffu, total, bit);
    if (threadIdx.x == 0) out[0] = total / rows;
  }
}
