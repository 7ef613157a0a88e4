// Block (steps, channel, batch): one output for each thread.
extern "C" __global__ void __launch_bounds__(BLOCK)
convolve(const float* __restrict__ x, const float* __restrict__ weight, const float* __restrict__ bias, float* __restrict__ out, int steps) {
  const int step = blockIdx.x * BLOCK + threadIdx.x;
  if (step >= steps) return;
  const int channel = blockIdx.y;
  const int64_t row = ((int64_t)blockIdx.z * gridDim.y + channel) * steps;
  float sum = bias[channel];
  for (int tap = 0; tap < 4; tap++) {
    const int from = step + tap - 3;
    if (from >= 0) sum += weight[channel * 4 + tap] * x[row + from];
  }
  out[row + step] = sum / (1.0f + expf(-sum));
}
