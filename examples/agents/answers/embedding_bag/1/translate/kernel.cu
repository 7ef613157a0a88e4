// Block = bag, thread = column.
extern "C" __global__ void add_rows(const int64_t* __restrict__ indices, const float* __restrict__ weights,
                                    const float* __restrict__ table, float* __restrict__ out, int entries, int width) {
  const int64_t bag = blockIdx.x;
  for (int col = threadIdx.x; col < width; col += BLOCK) {
    float sum = 0.0f;
    for (int entry = 0; entry < entries; entry++) {
      sum += weights[bag * entries + entry] * table[indices[bag * entries + entry] * width + col];
    }
    out[bag * width + col] = sum;
  }
}
