constexpr int HALF = 64;  // heads are 128 wide

// Warp = head of one step: elements lane, lane + 32, lane + 64 and lane + 96.
extern "C" __global__ void __launch_bounds__(BLOCK)
normalise_and_turn(const float* __restrict__ x, const float* __restrict__ cos, const float* __restrict__ sin,
                   const float* __restrict__ gain, float* __restrict__ out, int rows, int heads, int steps) {
  const int lane = threadIdx.x % 32;
  const int64_t row = blockIdx.x * (BLOCK / 32) + threadIdx.x / 32;
  if (row >= rows) return;
  const int64_t step = row / heads % steps;
  float y[4], squares = 0.0f;
  for (int i = 0; i < 4; i++) {
    y[i] = x[row * 2 * HALF + lane + 32 * i];
    squares += y[i] * y[i];
  }
  for (int bit = 16; bit > 0; bit /= 2) squares += __shfl_xor_sync(0xffffffffu, squares, bit);
  const float scale = 1.0f / sqrtf(squares / (2 * HALF) + 1e-6f);
  for (int i = 0; i < 4; i++) y[i] *= scale * gain[lane + 32 * i];
  for (int i = 0; i < 4; i++) {
    const int col = lane + 32 * i;
    const float turned = i < 2 ? -y[i + 2] : y[i - 2];
    out[row * 2 * HALF + col] = y[i] * cos[step * 2 * HALF + col] + turned * sin[step * 2 * HALF + col];
  }
}
