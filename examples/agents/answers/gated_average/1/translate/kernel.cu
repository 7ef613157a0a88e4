constexpr float LEAST = 1e-6f;

// Thread (channel) of block (channels, batch) carries both sums from step to step, in float64: they have thousands of terms.
extern "C" __global__ void __launch_bounds__(BLOCK)
running_average(const float* __restrict__ x, const float* __restrict__ gate, float* __restrict__ out, int steps, int channels) {
  const int channel = blockIdx.x * BLOCK + threadIdx.x;
  if (channel >= channels) return;
  int64_t at = (int64_t)blockIdx.y * steps * channels + channel;
  double sum = 0.0, weights = 0.0;
  #pragma unroll UNROLL
  for (int step = 0; step < steps; step++, at += channels) {
    const float weight = 1.0f / (1.0f + expf(-gate[at]));
    sum += weight * x[at];
    weights += weight;
    out[at] = (float)sum / ((float)weights + LEAST);
  }
}
