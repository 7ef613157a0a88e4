"""Pieces of CUDA that kernels share. They are pasted into a program's source where it uses them.

Accumulators are small structs with `empty`, `add` and `merge`; the reductions over lanes, warps and blocks work on any
of them. Merging is commutative, so that every lane of a butterfly ends with the same value.
"""

from __future__ import annotations

from collections.abc import Mapping

from warpsmith.author.builtin.kernels.snippets_cluster import CLUSTER_SNIPPETS
from warpsmith.author.builtin.kernels.snippets_scan import SCAN_SNIPPETS
from warpsmith.author.builtin.kernels.snippets_tensor import TENSOR_SNIPPETS


def _turned(name: str, comment: str, value: str) -> str:
    """A function that turns one tile of a tensor."""
    head = "// One tile of 32 x 32 from [lead, along, across] to [lead, across, along]"
    return f"""{head}{comment}; `block` counts tiles.
template <int Rows, typename T>
__device__ void {name}(T (&tile)[32][33], const T* from, T* to, int along, int across, int block) {{
    const int down = (along + 31) / 32, over = (across + 31) / 32, lead = block / (down * over);
    const int first_along = block / over % down * 32, first_across = block % over * 32;
    from += (long long)lead * along * across;
    to += (long long)lead * along * across;
    #pragma unroll
    for (int i = threadIdx.y; i < 32; i += Rows) {{
        const int line = first_along + i, place = first_across + threadIdx.x;
        if (line < along && place < across) tile[i][threadIdx.x] = {value};
    }}
    __syncthreads();
    #pragma unroll
    for (int i = threadIdx.y; i < 32; i += Rows) {{
        const int line = first_along + threadIdx.x, place = first_across + i;
        if (line < along && place < across) to[place * along + line] = tile[threadIdx.x][i];
    }}
}}"""


SNIPPETS: Mapping[str, str] = {
    "Vec": """// N neighbouring elements, moved in one access.
template <typename T, int N> struct alignas(sizeof(T) * N) Vec { T at[N]; };""",
    "Sum": """template <typename T> struct Sum {
    T value;
    static __device__ Sum empty() { return {T(0)}; }
    __device__ void add(T x) { value += x; }
    __device__ void merge(Sum other) { value += other.value; }
};""",
    "Product": """template <typename T> struct Product {
    T value;
    static __device__ Product empty() { return {T(1)}; }
    __device__ void add(T x) { value *= x; }
    __device__ void merge(Product other) { value *= other.value; }
};""",
    "Largest": """// NaN wins, as it does in PyTorch.
template <typename T> struct Largest {
    T value;
    static __device__ Largest empty() { return {lowest<T>()}; }
    __device__ void add(T x) { if (x > value || x != x) value = x; }
    __device__ void merge(Largest other) { add(other.value); }
};""",
    "Smallest": """// NaN wins, as it does in PyTorch.
template <typename T> struct Smallest {
    T value;
    static __device__ Smallest empty() { return {highest<T>()}; }
    __device__ void add(T x) { if (x < value || x != x) value = x; }
    __device__ void merge(Smallest other) { add(other.value); }
};""",
    "Any": """struct Any {
    int value;
    static __device__ Any empty() { return {0}; }
    __device__ void add(bool x) { value |= x; }
    __device__ void merge(Any other) { value |= other.value; }
};""",
    "All": """struct All {
    int value;
    static __device__ All empty() { return {1}; }
    __device__ void add(bool x) { value &= x; }
    __device__ void merge(All other) { value &= other.value; }
};""",
    "LargestAt": """// The largest value and its first position; NaN wins, as it does in PyTorch.
template <typename T> struct LargestAt {
    T value;
    int at;
    static __device__ LargestAt empty() { return {lowest<T>(), 0x7fffffff}; }
    __device__ void add(T x, int place) {
        const bool nan = x != x, held_nan = value != value;
        if (nan == held_nan ? x > value || ((x == value || nan) && place < at) : nan) { value = x; at = place; }
    }
    __device__ void merge(LargestAt other) { add(other.value, other.at); }
};""",
    "SmallestAt": """// The smallest value and its first position; NaN wins, as it does in PyTorch.
template <typename T> struct SmallestAt {
    T value;
    int at;
    static __device__ SmallestAt empty() { return {highest<T>(), 0x7fffffff}; }
    __device__ void add(T x, int place) {
        const bool nan = x != x, held_nan = value != value;
        if (nan == held_nan ? x < value || ((x == value || nan) && place < at) : nan) { value = x; at = place; }
    }
    __device__ void merge(SmallestAt other) { add(other.value, other.at); }
};""",
    "Moments": """// Mean and sum of squared deviations in one pass (Welford, 1962; merged as by Chan et al., 1979).
template <typename T> struct Moments {
    T mean, deviation, count;
    static __device__ Moments empty() { return {T(0), T(0), T(0)}; }
    __device__ void add(T x) {
        count += T(1);
        const T gap = x - mean;
        mean += gap / count;
        deviation += gap * (x - mean);
    }
    __device__ void merge(Moments other) {
        const T total = count + other.count;
        if (total == T(0)) return;
        const T gap = other.mean - mean, share = other.count / total;
        mean += gap * share;
        deviation += other.deviation + gap * gap * count * share;
        count = total;
    }
};""",
    "OnlineSoftmax": """// Largest value and sum of exponentials relative to it (Milakov and Gimelshein, 2018).
template <typename T> struct OnlineSoftmax {
    T largest, sum;
    static __device__ OnlineSoftmax empty() { return {lowest<T>(), T(0)}; }
    __device__ void add(T x) { merge({x, T(1)}); }
    __device__ void merge(OnlineSoftmax other) {
        if (other.largest > largest || other.largest != other.largest) {
            const OnlineSoftmax mine = *this;
            *this = other;
            other = mine;
        }
        // Equal maxima need no scaling, which also keeps two infinities from making a NaN.
        sum += other.largest == largest ? other.sum : other.sum * exp(other.largest - largest);
    }
};""",
    "warp_reduce": """// The same accumulator of the lane whose number differs in one bit.
template <typename A> __device__ A exchanged(const A& mine, int bit) {
    static_assert(sizeof(A) % 4 == 0, "accumulators move as 32-bit words");
    union Words { A whole; int word[sizeof(A) / 4]; __device__ Words() {} } out, in;
    out.whole = mine;
    #pragma unroll
    for (int w = 0; w < int(sizeof(A) / 4); ++w) in.word[w] = __shfl_xor_sync(0xffffffffu, out.word[w], bit);
    return in.whole;
}

// Merge over a warp; every lane gets the result.
template <typename A> __device__ A warp_reduce(A mine) {
    #pragma unroll
    for (int bit = 16; bit > 0; bit /= 2) mine.merge(exchanged(mine, bit));
    return mine;
}""",
    "block_reduce": """// Merge over a block of whole warps; every thread gets the result.
template <int Warps, typename A> __device__ A block_reduce(A mine) {
    __shared__ A partial[Warps];
    mine = warp_reduce(mine);
    if constexpr (Warps > 1) {
        if (threadIdx.x % 32 == 0) partial[threadIdx.x / 32] = mine;
        __syncthreads();
        mine = partial[0];
        #pragma unroll
        for (int w = 1; w < Warps; ++w) mine.merge(partial[w]);
        __syncthreads();
    }
    return mine;
}""",
    "column_reduce": """// Merge over threadIdx.y; every thread of a column gets the result.
template <int Width, int Height, typename A> __device__ A column_reduce(A mine) {
    __shared__ A partial[Height][Width];
    partial[threadIdx.y][threadIdx.x] = mine;
    __syncthreads();
    mine = partial[0][threadIdx.x];
    for (int y = 1; y < Height; ++y) mine.merge(partial[y][threadIdx.x]);
    __syncthreads();
    return mine;
}""",
    "scans": """// The accumulator of the lane `by` places to the left; meaningless where there is none.
template <typename A> __device__ A from_left(const A& mine, int by) {
    static_assert(sizeof(A) % 4 == 0, "accumulators move as 32-bit words");
    union Words { A whole; int word[sizeof(A) / 4]; __device__ Words() {} } out, in;
    out.whole = mine;
    #pragma unroll
    for (int w = 0; w < int(sizeof(A) / 4); ++w) in.word[w] = __shfl_up_sync(0xffffffffu, out.word[w], by);
    return in.whole;
}

// Merge of the lanes to the left of this one; `total` becomes the merge over the warp.
template <typename A> __device__ A warp_scan(A mine, A& total) {
    const int lane = threadIdx.x % 32;
    #pragma unroll
    for (int by = 1; by < 32; by *= 2) {
        const A other = from_left(mine, by);
        if (lane >= by) mine.merge(other);
    }
    total.value = __shfl_sync(0xffffffffu, mine.value, 31);
    const A before = from_left(mine, 1);
    return lane == 0 ? A::empty() : before;
}""",
    "block_scan": """// Merge of the threads before this one in a block; `total` becomes the merge over the block.
template <int Warps, typename A> __device__ A block_scan(A mine, A& total) {
    __shared__ A partial[Warps];
    const int warp = threadIdx.x / 32;
    A of_warp = A::empty();
    const A in_warp = warp_scan(mine, of_warp);
    if (threadIdx.x % 32 == 0) partial[warp] = of_warp;
    __syncthreads();
    A before = A::empty();
    total = A::empty();
    #pragma unroll
    for (int w = 0; w < Warps; ++w) {
        if (w < warp) before.merge(partial[w]);
        total.merge(partial[w]);
    }
    __syncthreads();
    before.merge(in_warp);
    return before;
}""",
    "column_scan": """// Merge of the threads above this one in its column; `total` becomes the merge over the column.
template <int Width, int Height, typename A> __device__ A column_scan(A mine, A& total) {
    __shared__ A partial[Height][Width];
    partial[threadIdx.y][threadIdx.x] = mine;
    __syncthreads();
    A before = A::empty();
    total = A::empty();
    #pragma unroll
    for (int y = 0; y < Height; ++y) {
        if (y < threadIdx.y) before.merge(partial[y][threadIdx.x]);
        total.merge(partial[y][threadIdx.x]);
    }
    __syncthreads();
    return before;
}""",
    "gathered": """// Merge what the Parts blocks of one row left behind.
template <int Parts, typename A> __device__ A gathered(const A* parts, int row) {
    A all = parts[row * Parts];
    for (int p = 1; p < Parts; ++p) all.merge(parts[row * Parts + p]);
    return all;
}""",
    "team_sum": """// Sum over Size neighbouring lanes; every one of them gets the result.
template <int Size, typename T> __device__ T team_sum(T mine) {
    #pragma unroll
    for (int bit = Size / 2; bit > 0; bit /= 2) mine += __shfl_xor_sync(0xffffffffu, mine, bit);
    return mine;
}""",
    "grid_barrier": """// Blocks that are all resident meet: each adds one to `arrived`, and waits until it is `goal`.
__device__ void grid_barrier(int* arrived, int goal) {
    __syncthreads();
    if (threadIdx.x == 0) {
        __threadfence();
        atomicAdd(arrived, 1);
        while (*(volatile int*)arrived < goal) {}
        __threadfence();
    }
    __syncthreads();
}""",
    "turned": _turned("turned", "", "from[line * across + place]"),
    "limits": """template <typename T> __device__ constexpr T lowest() {
    if constexpr (T(1) / T(2) != T(0)) return T(-INFINITY);
    else return T(1ull << (8 * sizeof(T) - 1));
}
template <typename T> __device__ constexpr T highest() {
    if constexpr (T(1) / T(2) != T(0)) return T(INFINITY);
    else return T(~(1ull << (8 * sizeof(T) - 1)));
}""",
    **CLUSTER_SNIPPETS,
    **SCAN_SNIPPETS,
    **TENSOR_SNIPPETS,
    "turned_tf32": _turned(
        "turned_tf32", ", rounded to what tensor cores read", "__uint_as_float(round_tf32(from[line * across + place]))"
    ),
}

# What a snippet needs before it.
_NEEDS: Mapping[str, tuple[str, ...]] = {
    "Largest": ("limits",),
    "Smallest": ("limits",),
    "LargestAt": ("limits",),
    "SmallestAt": ("limits",),
    "OnlineSoftmax": ("limits",),
    "turned_tf32": ("round_tf32",),
    "block_reduce": ("warp_reduce",),
    "cluster_reduce": ("warp_reduce",),
    "block_scan": ("scans",),
}


def pasted(names: set[str]) -> list[str]:
    """Return the texts of snippets and of all that they need, in an order in which they compile."""
    wanted = names | {need for name in names for need in _NEEDS.get(name, ())}
    order = sorted(SNIPPETS, key=lambda name: (name != "limits", list(SNIPPETS).index(name)))
    return [SNIPPETS[name] for name in order if name in wanted]
