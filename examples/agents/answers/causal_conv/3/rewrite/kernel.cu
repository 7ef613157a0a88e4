__device__ float silu(float x) { return __fdividef(x, 1.0f + __expf(-x)); }

// The vectors of one thread in a stretch of BLOCK * VECTORS vectors. All rows lie one after the other in memory, and are
// multiples of four long. `edge` is the vector before, for the first lane, which has no neighbour to ask.
struct Stretch {
  float4 v[VECTORS], edge[VECTORS];

  __device__ void load(const float4* x, int begin, int all) {
    const float4 nothing = make_float4(0.0f, 0.0f, 0.0f, 0.0f);
    #pragma unroll
    for (int i = 0; i < VECTORS; i++) {
      const int at = begin + i * BLOCK;
      v[i] = at < all ? __ldcs(x + at) : nothing;
      edge[i] = threadIdx.x % 32 == 0 && at > 0 && at < all ? x[at - 1] : nothing;
    }
  }
};

extern "C" __global__ void __launch_bounds__(BLOCK)
convolve(const float4* __restrict__ x, const float4* __restrict__ weight, const float* __restrict__ bias, float4* __restrict__ out,
         int all, int vectors, int channels) {
  const int stride = gridDim.x * BLOCK * VECTORS;
  Stretch next;
  int begin = blockIdx.x * BLOCK * VECTORS + threadIdx.x;
  next.load(x, begin, all);
  for (int first = blockIdx.x * BLOCK * VECTORS; first < all; first += stride, begin += stride) {
    const Stretch now = next;
    next.load(x, begin + stride, all);
    #pragma unroll
    for (int i = 0; i < VECTORS; i++) {
      const float4 v = now.v[i];
      float3 u = make_float3(__shfl_up_sync(0xffffffffu, v.y, 1), __shfl_up_sync(0xffffffffu, v.z, 1), __shfl_up_sync(0xffffffffu, v.w, 1));
      if (threadIdx.x % 32 == 0) u = make_float3(now.edge[i].y, now.edge[i].z, now.edge[i].w);
      const int at = begin + i * BLOCK;
      const int row = at / vectors;
      if (at == row * vectors) u = make_float3(0.0f, 0.0f, 0.0f);  // nothing comes before a row
      if (at >= all) continue;
      const float4 w = weight[row % channels];
      const float b = bias[row % channels];
      const float4 y = make_float4(b + w.x * u.x + w.y * u.y + w.z * u.z + w.w * v.x, b + w.x * u.y + w.y * u.z + w.z * v.x + w.w * v.y,
                                   b + w.x * u.z + w.y * v.x + w.z * v.y + w.w * v.z, b + w.x * v.x + w.y * v.y + w.z * v.z + w.w * v.w);
      __stcs(out + at, make_float4(silu(y.x), silu(y.y), silu(y.z), silu(y.w)));
    }
  }
}
