constexpr int ROW = 5;            // vectors of a row in shared memory: four, and one that keeps rows on different banks
constexpr int MATRIX = 16 * ROW;

__device__ float4 add_product(float4 sum, float a, float4 b) {
  return make_float4(fmaf(a, b.x, sum.x), fmaf(a, b.y, sum.y), fmaf(a, b.z, sum.z), fmaf(a, b.w, sum.w));
}

__device__ float4 relu_of_sum(float4 a, float4 b) {
  return make_float4(fmaxf(a.x + b.x, 0.0f), fmaxf(a.y + b.y, 0.0f), fmaxf(a.z + b.z, 0.0f), fmaxf(a.w + b.w, 0.0f));
}

// Sixteen neighbouring threads = one matrix; thread = rows down, down + 4, ... and four columns.
extern "C" __global__ void __launch_bounds__(BLOCK)
multiply(const float4* __restrict__ a, const float4* __restrict__ b, float4* __restrict__ out, int batch) {
  __shared__ float4 of_block[BLOCK / 16][2][MATRIX];
  const int thread = threadIdx.x % 16, down = thread / 4, across = thread % 4;
  const int64_t matrix = (int64_t)blockIdx.x * (BLOCK / 16) + threadIdx.x / 16;
  const bool mine = matrix < batch;  // both halves of a warp meet at its barrier
  float4* left = of_block[threadIdx.x / 16][0];
  float4* right = of_block[threadIdx.x / 16][1];
  if (mine) {
    float4 from_a[4], from_b[4];
    #pragma unroll
    for (int i = 0; i < 4; i++) {
      from_a[i] = __ldcs(a + matrix * 64 + 16 * i + thread);
      from_b[i] = __ldcs(b + matrix * 64 + 16 * i + thread);
    }
    #pragma unroll
    for (int i = 0; i < 4; i++) {
      left[(4 * i + down) * ROW + across] = from_a[i];
      right[(4 * i + down) * ROW + across] = from_b[i];
    }
  }
  __syncwarp();
  if (!mine) return;

  float4 sum[4] = {};
  #pragma unroll
  for (int k = 0; k < 4; k++) {
    float4 of_b[4];
    #pragma unroll
    for (int j = 0; j < 4; j++) of_b[j] = right[(4 * k + j) * ROW + across];
    #pragma unroll
    for (int i = 0; i < 4; i++) {
      const float4 of_a = left[(4 * i + down) * ROW + k];
      sum[i] = add_product(sum[i], of_a.x, of_b[0]);
      sum[i] = add_product(sum[i], of_a.y, of_b[1]);
      sum[i] = add_product(sum[i], of_a.z, of_b[2]);
      sum[i] = add_product(sum[i], of_a.w, of_b[3]);
    }
  }
  #pragma unroll
  for (int i = 0; i < 4; i++) {
    __stcs(out + matrix * 64 + 16 * i + thread, relu_of_sum(sum[i], left[(4 * i + down) * ROW + across]));
  }
}
