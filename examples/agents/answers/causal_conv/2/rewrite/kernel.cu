__device__ float silu(float x) { return __fdividef(x, 1.0f + __expf(-x)); }

// Block (stretch of a row, row): VECTORS vectors for each thread. Rows are multiples of four long.
extern "C" __global__ void __launch_bounds__(BLOCK)
convolve(const float4* __restrict__ x, const float4* __restrict__ weight, const float* __restrict__ bias, float4* __restrict__ out,
         int vectors, int channels) {
  const float4 nothing = make_float4(0.0f, 0.0f, 0.0f, 0.0f);
  const int64_t row = (int64_t)blockIdx.y * vectors;
  const int begin = blockIdx.x * BLOCK * VECTORS + threadIdx.x;
  float4 v[VECTORS], edge[VECTORS];
  #pragma unroll
  for (int i = 0; i < VECTORS; i++) {
    const int at = begin + i * BLOCK;
    v[i] = at < vectors ? __ldcs(x + row + at) : nothing;
    // Only the first lane has no neighbour with the vector before.
    edge[i] = threadIdx.x % 32 == 0 && at > 0 && at < vectors ? x[row + at - 1] : nothing;
  }
  const float4 w = weight[blockIdx.y % channels];
  const float b = bias[blockIdx.y % channels];
  #pragma unroll
  for (int i = 0; i < VECTORS; i++) {
    float3 u = make_float3(__shfl_up_sync(0xffffffffu, v[i].y, 1), __shfl_up_sync(0xffffffffu, v[i].z, 1), __shfl_up_sync(0xffffffffu, v[i].w, 1));
    if (threadIdx.x % 32 == 0) u = make_float3(edge[i].y, edge[i].z, edge[i].w);
    const float4 y = make_float4(
        b + w.x * u.x + w.y * u.y + w.z * u.z + w.w * v[i].x, b + w.x * u.y + w.y * u.z + w.z * v[i].x + w.w * v[i].y,
        b + w.x * u.z + w.y * v[i].x + w.z * v[i].y + w.w * v[i].z, b + w.x * v[i].x + w.y * v[i].y + w.z * v[i].z + w.w * v[i].w);
    const int at = begin + i * BLOCK;
    if (at < vectors) __stcs(out + row + at, make_float4(silu(y.x), silu(y.y), silu(y.z), silu(y.w)));
  }
}
