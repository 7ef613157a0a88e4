constexpr float PENALTY = 1e-4f;

__device__ float greater(float a, float b) { return fmaxf(a, b); }
__device__ float sum(float a, float b) { return a + b; }

// Combines the values of all threads; every thread gets the result.
template <float combine(float, float)> __device__ float of_block(float mine) {
  __shared__ float of_warps[BLOCK / 32];
  for (int bit = 16; bit > 0; bit /= 2) mine = combine(mine, __shfl_xor_sync(0xffffffffu, mine, bit));
  __syncthreads();
  if (threadIdx.x % 32 == 0) of_warps[threadIdx.x / 32] = mine;
  __syncthreads();
  mine = of_warps[0];
  for (int warp = 1; warp < BLOCK / 32; warp++) mine = combine(mine, of_warps[warp]);
  return mine;
}

// The loss of one row: the logarithm of its denominator, the penalty on it, less the logit that was right.
extern "C" __global__ void __launch_bounds__(BLOCK)
row_losses(const float* __restrict__ logits, const int64_t* __restrict__ targets, float* __restrict__ losses, int cols) {
  const float* row = logits + (int64_t)blockIdx.x * cols;
  float greatest = -INFINITY;
  for (int col = threadIdx.x; col < cols; col += BLOCK) greatest = fmaxf(greatest, row[col]);
  greatest = of_block<greater>(greatest);

  float total = 0.0f;
  for (int col = threadIdx.x; col < cols; col += BLOCK) total += expf(row[col] - greatest);
  total = of_block<sum>(total);

  if (threadIdx.x == 0) {
    const float denominator = greatest + logf(total);
    losses[blockIdx.x] = denominator - row[targets[blockIdx.x]] + PENALTY * denominator * denominator;
  }
}

extern "C" __global__ void __launch_bounds__(BLOCK) mean(const float* __restrict__ losses, float* __restrict__ out, int rows) {
  float total = 0.0f;
  for (int row = threadIdx.x; row < rows; row += BLOCK) total += losses[row];
  total = of_block<sum>(total);
  if (threadIdx.x == 0) out[0] = total / rows;
}
