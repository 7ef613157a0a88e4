"""How blocks that scan the tiles of a row tell each other their sums; see `scan_lookback` for the idea."""

from __future__ import annotations

from collections.abc import Mapping

SCAN_SNIPPETS: Mapping[str, str] = {
    "look_back": """// A value on its way to other blocks: each 32 bits share a word with a mark that they are there.
// A word is written and read as a whole, so neither side needs a fence. Width values lie side by side.
template <int Width, typename A> __device__ void post(volatile unsigned long long* posts, int place, const A& value) {
    static_assert(sizeof(A) % 4 == 0, "accumulators move as 32-bit words");
    constexpr int Words = sizeof(A) / 4;
    union Halves { A whole; unsigned word[Words]; __device__ Halves() {} } out;
    out.whole = value;
    #pragma unroll
    for (int w = 0; w < Words; ++w) posts[(place * Words + w) * Width] = 1ull << 32 | out.word[w];
}

// Wait until a value is there.
template <int Width, typename A> __device__ A awaited(const volatile unsigned long long* posts, int place) {
    constexpr int Words = sizeof(A) / 4;
    union Halves { A whole; unsigned word[Words]; __device__ Halves() {} } in;
    #pragma unroll
    for (int w = 0; w < Words; ++w) {
        unsigned long long seen;
        do seen = posts[(place * Words + w) * Width]; while (seen >> 32 == 0);
        in.word[w] = unsigned(seen);
    }
    return in.whole;
}

// Words that the posts of a row need: for each of so many tiles, for every 32 of them, for every 32 of those ...
template <typename A> __device__ constexpr int words_for(int tiles) {
    int posts = tiles;
    while (tiles > 32) {
        tiles = (tiles + 31) / 32;
        posts += tiles;
    }
    return posts * int(sizeof(A) / 4);
}

// Merge of the tiles before one in a row of Tiles. `mine` is the tile itself: it is posted, and the last of 32
// neighbours posts the merge of all 32, and so on. What is merged with what depends on the tile's number
// alone, not on who comes first, so results never vary. So many Searchers, of which this thread is number
// `seat`, take the posts in turns, and `reduce` merges what they found.
template <int Tiles, int Width, int Searchers, typename A, typename Reduce>
__device__ A look_back(volatile unsigned long long* posts, int tile, int seat, A mine, Reduce reduce) {
    A before = A::empty();
    bool complete = true;
    #pragma unroll
    for (int count = Tiles; count > 0; count = count > 32 ? (count + 31) / 32 : 0) {
        if (complete && seat == 0) post<Width>(posts, tile, mine);
        A found = A::empty();
        for (int at = tile / 32 * 32 + seat; at < tile; at += Searchers) found.merge(awaited<Width, A>(posts, at));
        found = reduce(found);
        before.merge(found);
        mine.merge(found);
        complete = complete && tile % 32 == 31;
        posts += count * int(sizeof(A) / 4) * Width;
        tile /= 32;
    }
    return before;
}""",
}
