constexpr float LEAST = 1e-6f;

__device__ float weight_of(float gate) { return 1.0f / (1.0f + expf(-gate)); }

// Block (channels, part, batch): both sums of one part of the sequence.
extern "C" __global__ void __launch_bounds__(BLOCK)
part_sums(const float* __restrict__ x, const float* __restrict__ gate, float2* __restrict__ sums, int steps, int channels, int length) {
  const int channel = blockIdx.x * BLOCK + threadIdx.x;
  if (channel >= channels) return;
  const int begin = blockIdx.y * length, end = min(begin + length, steps);
  const int64_t batch = (int64_t)blockIdx.z * steps * channels + channel;
  float sum = 0.0f, weights = 0.0f;
  #pragma unroll 8
  for (int step = begin; step < end; step++) {
    const float weight = weight_of(gate[batch + (int64_t)step * channels]);
    sum += weight * x[batch + (int64_t)step * channels];
    weights += weight;
  }
  sums[((int64_t)blockIdx.z * PARTS + blockIdx.y) * channels + channel] = make_float2(sum, weights);
}

// The same blocks: start from the sums of all parts before this one, and go over the part again.
extern "C" __global__ void __launch_bounds__(BLOCK)
averages(const float* __restrict__ x, const float* __restrict__ gate, const float2* __restrict__ sums, float* __restrict__ out,
         int steps, int channels, int length) {
  const int channel = blockIdx.x * BLOCK + threadIdx.x;
  if (channel >= channels) return;
  const int begin = blockIdx.y * length, end = min(begin + length, steps);
  const int64_t batch = (int64_t)blockIdx.z * steps * channels + channel;
  float sum = 0.0f, weights = 0.0f;
  for (int part = 0; part < blockIdx.y; part++) {
    const float2 before = sums[((int64_t)blockIdx.z * PARTS + part) * channels + channel];
    sum += before.x;
    weights += before.y;
  }
  #pragma unroll 8
  for (int step = begin; step < end; step++) {
    const int64_t at = batch + (int64_t)step * channels;
    const float weight = weight_of(gate[at]);
    sum += weight * x[at];
    weights += weight;
    out[at] = sum / (weights + LEAST);
  }
}
