__device__ float4 add_product(float4 sum, float a, float4 b) {
  return make_float4(fmaf(a, b.x, sum.x), fmaf(a, b.y, sum.y), fmaf(a, b.z, sum.z), fmaf(a, b.w, sum.w));
}

__device__ float4 relu_of_sum(float4 a, float4 b) {
  return make_float4(fmaxf(a.x + b.x, 0.0f), fmaxf(a.y + b.y, 0.0f), fmaxf(a.z + b.z, 0.0f), fmaxf(a.w + b.w, 0.0f));
}

// Sixteen neighbouring threads = one matrix; thread = rows down, down + 4, ... and four columns. A row is four vectors.
extern "C" __global__ void __launch_bounds__(BLOCK)
multiply(const float4* __restrict__ a, const float4* __restrict__ b, float4* __restrict__ out, int batch) {
  const int down = threadIdx.x % 16 / 4, across = threadIdx.x % 4;
  const int64_t matrix = (int64_t)blockIdx.x * (BLOCK / 16) + threadIdx.x / 16;
  if (matrix >= batch) return;
  a += matrix * 64;
  b += matrix * 64;
  float4 sum[4] = {};
  #pragma unroll
  for (int k = 0; k < 4; k++) {
    const float4 right[4] = {b[16 * k + across], b[16 * k + 4 + across], b[16 * k + 8 + across], b[16 * k + 12 + across]};
    #pragma unroll
    for (int i = 0; i < 4; i++) {
      const float4 left = a[(down + 4 * i) * 4 + k];
      sum[i] = add_product(sum[i], left.x, right[0]);
      sum[i] = add_product(sum[i], left.y, right[1]);
      sum[i] = add_product(sum[i], left.z, right[2]);
      sum[i] = add_product(sum[i], left.w, right[3]);
    }
  }
  #pragma unroll
  for (int i = 0; i < 4; i++) {
    const int at = (down + 4 * i) * 4 + across;
    __stcs(out + matrix * 64 + at, relu_of_sum(sum[i], a[at]));
  }
}
