constexpr float PENALTY = 1e-4f;

// A sum of exponentials relative to the greatest exponent seen so far.
struct Sum {
  float greatest, total;

  __device__ void add(float x) {
    const float next = fmaxf(greatest, x);
    total = total * expf(greatest - next) + expf(x - next);
    greatest = next;
  }
  __device__ void merge(float other_greatest, float other_total) {
    const float next = fmaxf(greatest, other_greatest);
    total = total * expf(greatest - next) + other_total * expf(other_greatest - next);
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

// The loss of one row: the logarithm of its denominator, the penalty on it, less the logit that was right.
extern "C" __global__ void __launch_bounds__(BLOCK)
row_losses(const float* __restrict__ logits, const int64_t* __restrict__ targets, float* __restrict__ losses, int cols) {
  __shared__ float greatest[BLOCK / 32], total[BLOCK / 32];
  const float* row = logits + (int64_t)blockIdx.x * cols;
  Sum mine = {-FLT_MAX, 0.0f};
  for (int col = threadIdx.x; col < cols; col += BLOCK) mine.add(row[col]);
  mine = of_warp(mine);
  if (threadIdx.x % 32 == 0) {
    greatest[threadIdx.x / 32] = mine.greatest;
    total[threadIdx.x / 32] = mine.total;
  }
  __syncthreads();
  if (threadIdx.x == 0) {
    for (int warp = 1; warp < BLOCK / 32; warp++) mine.merge(greatest[warp], total[warp]);
    const float denominator = mine.greatest + logf(mine.total);
    losses[blockIdx.x] = denominator - row[targets[blockIdx.x]] + PENALTY * denominator * denominator;
  }
}

// One warp adds up all rows.
extern "C" __global__ void mean(const float* __restrict__ losses, float* __restrict__ out, int rows) {
  float total = 0.0f;
  for (int row = threadIdx.x; row < rows; row += 32) total += losses[row];
  for (int bit = 16; bit > 0; bit /= 2) total += __shfl_xor_sync(0xffffffffu, total, bit);
  if (threadIdx.x == 0) out[0] = total / rows;
}
