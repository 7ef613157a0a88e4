// Block = matrix, thread = element.
extern "C" __global__ void __launch_bounds__(256)
multiply(const float* __restrict__ a, const float* __restrict__ b, float* __restrict__ out) {
  const int row = threadIdx.x / 16, col = threadIdx.x % 16;
  const int64_t matrix = (int64_t)blockIdx.x * 256;
  float sum = 0.0f;
  for (int k = 0; k < 16; k++) sum += a[matrix + row * 16 + k] * b[matrix + k * 16 + col];
  out[matrix + threadIdx.x] = fmaxf(sum + a[matrix + threadIdx.x], 0.0f);
}
