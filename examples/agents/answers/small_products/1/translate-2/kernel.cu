// Block = MATRICES neighbouring matrices, one after the other; thread = element.
extern "C" __global__ void __launch_bounds__(256)
multiply(const float* __restrict__ a, const float* __restrict__ b, float* __restrict__ out, int batch) {
  __shared__ float left[MATRICES][256], right[MATRICES][256];
  const int row = threadIdx.x / 16, col = threadIdx.x % 16;
  const int first = blockIdx.x * MATRICES;
  for (int i = 0; i < MATRICES && first + i < batch; i++) {
    left[i][threadIdx.x] = a[(int64_t)(first + i) * 256 + threadIdx.x];
    right[i][threadIdx.x] = b[(int64_t)(first + i) * 256 + threadIdx.x];
  }
  __syncthreads();
  for (int i = 0; i < MATRICES && first + i < batch; i++) {
    float sum = 0.0f;
    for (int k = 0; k < 16; k++) sum += left[i][row * 16 + k] * right[i][k * 16 + col];
    out[(int64_t)(first + i) * 256 + threadIdx.x] = fmaxf(sum + left[i][threadIdx.x], 0.0f);
  }
}
