// Re-runs of persistent kernels: some rows run again from other states, in place, until they meet what is there.
//
// All blocks of a tile of rows decide together and on the device. Every `every` steps each sets, in a word of `far`,
// the bits of those rows that are still too far off, before it arrives at the step's counter; whoever has waited for the
// step reads the word, which is complete then, and stops where it is zero. Words are cumulative: a row that has met
// stays so, though it is carried along as long as another of its tile has not.
//
// As in persistent.cu, but for
//   list (n_rows)        rows of the arrays to be run again
//   far (checks, tiles)  zero; a check every `every` steps and after the last, gridDim.y SUBTILES tiles
//   met (n_rows)         out: steps until a row met; left alone where it did not
//   counters (tiles)     zero
#include "persistent.cuh"

static_assert(EXCHANGE == 0, "what is overwritten cannot say that it has been written");
static_assert(ROWS <= 32 && SUBTILES < 32, "a bit a row, a bit a subtile");

// Read a check's word; say of the rows that were unmet before and are not now that they met.
__device__ __forceinline__ uint32 read_check(const uint32* far, int check, int tiles, int tile, int* met, int n_rows,
                                             int steps) {
    const uint32 unmet = load_relaxed(far + check * tiles + tile);
    const int bit = threadIdx.x, row = tile * ROWS + bit;
    if (blockIdx.x == 0 && bit < ROWS && row < n_rows) {
        const uint32 before = check ? load_relaxed(far + (check - 1) * tiles + tile) : ~0u;
        if (before & ~unmet & 1u << bit) met[row] = steps;
    }
    return unmet;
}

// Set the bits of rows that are too far off; all threads of a warp together.
__device__ __forceinline__ void write_check(uint32* far, int check, int tiles, int tile, uint32 bits) {
    bits = or_in_warp(bits);
    if (threadIdx.x % 32 == 0 && bits) {
        const uint32 before = check ? load_relaxed(far + (check - 1) * tiles + tile) : ~0u;
        or_relaxed(far + check * tiles + tile, bits & before);
    }
}

// Not a number is far from everything.
__device__ __forceinline__ bool is_far(float difference, float limit) { return !(fabsf(difference) <= limit); }

#ifdef FORWARD
// Row 0 of h and c is the new state of the rows listed; the rest is what the last run left.
//   h (T + 1, B, H), c (T + 1, B, H), gates (T, B, GATES H), q (T, B, H)  in and out
//   tolerance            of a difference; of c, and of h where nothing bounds it, relative to values above one
extern "C" __global__ void __launch_bounds__(THREADS, 1)
    forward(const Stored* __restrict__ RT, const float* __restrict__ b, const float* __restrict__ bR,
            const Stored* __restrict__ xw, Stored* gates, Stored* h, float* c, Stored* q, const int* __restrict__ list,
            uint32* far, int* met, uint32* counters, int T, int B, int H, int n_rows, int every, float tolerance) {
    extern __shared__ uint4 shared_memory[];
    using Sums = Partials<FORWARD_TILES>;
    Weights<FORWARD_TILES> weights;
    load_weights(weights, RT, H, shared_memory);
    float* partials = reinterpret_cast<float*>(shared_memory) + Weights<FORWARD_TILES>::BYTES / 4;
    Carry carry{reinterpret_cast<float2*>(partials + 2 * Sums::SIZE)};

    const long long gate_row = (long long)GATES * H;
    const int tiles = gridDim.y * SUBTILES;
    for (int s = 0; s < SUBTILES; ++s)
#pragma unroll
        for (int i = 0; i < ITEMS; ++i) {
            const Item item(i, s, n_rows, H);
            if (!item.exists) continue;
            const long long at = (long long)list[item.row] * H + item.unit;
#if CELL == LSTM
            const Pair start = load_pair(c + at);
            carry.at(s, i) = make_float2(start.first, start.second);
#elif CELL == GRU
            const Pair start = unpack(load_raw(h + at));
            carry.at(s, i) = make_float2(start.first, start.second);
#endif
        }

    uint32 done = 0;
    for (int t = 0; t <= T && done != (1u << SUBTILES) - 1; ++t)
        for (int s = 0; s < SUBTILES; ++s) {
            if (done >> s & 1) continue;
            if (t == T && blockIdx.x != 0) continue;  // one block is enough to say who met at the last step
            const int tile = blockIdx.y * SUBTILES + s;
            const Sums sums{partials + (t * SUBTILES + s) % 2 * Sums::SIZE};
            // What this step needs, and what it will overwrite, is on its way while the blocks wait for each other.
            Raw x[ITEMS][GATES], old[ITEMS];
            [[maybe_unused]] float2 old_c[ITEMS];
#pragma unroll
            for (int i = 0; i < ITEMS; ++i) {
                const Item item(i, s, n_rows, H);
                if (!item.exists || t == T) continue;
                const long long row = (long long)t * B + list[item.row], after = (row + B) * H + item.unit;
#pragma unroll
                for (int g = 0; g < GATES; ++g) x[i][g] = load_raw(xw + row * gate_row + g * H + item.unit);
                old[i] = load_raw(h + after);
#if CELL == LSTM
                old_c[i] = *reinterpret_cast<const float2*>(c + after);
#endif
            }
            wait_for(counters + tile, t * gridDim.x);
            if (t > 0 && (t % every == 0 || t == T) &&
                read_check(far, (t - 1) / every, tiles, tile, met, n_rows, t) == 0) {
                done |= 1u << s;
                continue;
            }
            if (t == T) continue;
            {
                float sum[FORWARD_TILES][N_TILES][4];
                product(sum, weights, h + (long long)t * B * H, tile * ROWS, Listed{n_rows, list}, H, H, true);
                sums.put(sum);
            }
            __syncthreads();
            uint32 off = 0;
#pragma unroll
            for (int i = 0; i < ITEMS; ++i) {
                const Item item(i, s, n_rows, H);
                if (!item.exists) continue;
                ForwardPair pair;
                pair.state = CELL == ELMAN ? make_float2(0.0f, 0.0f) : carry.at(s, i);
                pair.compute(x[i], sums, item, b, bR, H);
                const long long row = (long long)t * B + list[item.row], after = (row + B) * H + item.unit;
                publish(h + after, pair.next);
                const Pair seen = rounded(pair.next), was = unpack(old[i]);
                const float first = CELL == ELMAN && RELU ? tolerance * fmaxf(1.0f, fabsf(seen.first)) : tolerance;
                const float second = CELL == ELMAN && RELU ? tolerance * fmaxf(1.0f, fabsf(seen.second)) : tolerance;
                bool is_off = is_far(seen.first - was.first, first) || is_far(seen.second - was.second, second);
#if CELL == LSTM
                const float2 state = pair.state;
                carry.at(s, i) = state;
                store_pair32(c + after, {state.x, state.y});
                is_off = is_off || is_far(state.x - old_c[i].x, tolerance * fmaxf(1.0f, fabsf(state.x))) ||
                         is_far(state.y - old_c[i].y, tolerance * fmaxf(1.0f, fabsf(state.y)));
#elif CELL == GRU
                carry.at(s, i) = make_float2(seen.first, seen.second);
                store_pair(q + row * H + item.unit, pair.q);
#endif
#if CELL != ELMAN
#pragma unroll
                for (int g = 0; g < GATES; ++g)
                    store_pair(gates + row * gate_row + g * H + item.unit, {pair.active[0][g], pair.active[1][g]});
#endif
                if (is_off) off |= 1u << item.local_row;
            }
            if ((t + 1) % every == 0 || t + 1 == T) write_check(far, t / every, tiles, tile, off);
            arrive(counters + tile);
        }
}
#endif

#ifdef BACKWARD
// The correction of a gradient alone goes back in time, and is added to what the tape holds: the pass is linear.
//   d (T, B, SLOTS H)              in and out
//   ring (2, n_rows, PRODUCTS H)   for the blocks' exchange: the steps write to its halves in turn
//   dh, dc (n_rows, H)             in: correction of the final state's gradient; out: what of it reaches the state
//                                  before the first step, zero of rows whose tile met before
//   limit_h, limit_c               what dh and dc are small against
extern "C" __global__ void __launch_bounds__(THREADS, 1)
    backward(const Stored* __restrict__ R, const Stored* __restrict__ gates, const Stored* __restrict__ h,
             const float* __restrict__ c, const Stored* __restrict__ q, Stored* d, Stored* ring, float* dh, float* dc,
             const int* __restrict__ list, uint32* far, int* met, uint32* counters, int T, int B, int H, int n_rows,
             int every, float limit_h, float limit_c) {
    extern __shared__ uint4 shared_memory[];
    using Sums = Partials<BACKWARD_TILES>;
    Weights<BACKWARD_TILES> weights;
    load_weights(weights, R, H, shared_memory);
    float* partials = reinterpret_cast<float*>(shared_memory) + Weights<BACKWARD_TILES>::BYTES / 4;
    Carry carry{reinterpret_cast<float2*>(partials + 2 * Sums::SIZE)};

    const long long d_row = (long long)SLOTS * H, ring_row = (long long)PRODUCTS * H;
    const int tiles = gridDim.y * SUBTILES;
    for (int s = 0; s < SUBTILES; ++s)
#pragma unroll
        for (int i = 0; i < ITEMS; ++i) {
            const Item item(i, s, n_rows, H);
            if (!item.exists) continue;
            const Pair start = CELL == LSTM ? load_pair(dc + (long long)item.row * H + item.unit) : Pair{0.0f, 0.0f};
            carry.at(s, i) = make_float2(start.first, start.second);
        }

    uint32 done = 0;
    for (int n = 0; n <= T && done != (1u << SUBTILES) - 1; ++n)  // n steps are behind; after the last: no gates
        for (int s = 0; s < SUBTILES; ++s) {
            if (done >> s & 1) continue;
            const int t = T - 1 - n, tile = blockIdx.y * SUBTILES + s;
            const Sums sums{partials + (n * SUBTILES + s) % 2 * Sums::SIZE};
            TapePair ahead[ITEMS];
            Raw old[ITEMS][SLOTS];
#pragma unroll
            for (int i = 0; i < ITEMS; ++i) {
                const Item item(i, s, n_rows, H);
                if (!item.exists || t < 0) continue;
                const long long row = (long long)t * B + list[item.row];
                ahead[i].load(gates, h, c, q, row, item.unit, B, H);
#pragma unroll
                for (int j = 0; j < SLOTS; ++j) old[i][j] = load_raw(d + row * d_row + j * H + item.unit);
            }
            if (n > 0) {
                wait_for(counters + tile, n * gridDim.x);
                if (n > 1 && (n - 1) % every == 0 &&
                    read_check(far, (n - 1) / every - 1, tiles, tile, met, n_rows, n - 1) == 0) {
                    done |= 1u << s;
#pragma unroll
                    for (int i = 0; i < ITEMS; ++i) {
                        const Item item(i, s, n_rows, H);
                        if (!item.exists) continue;
                        const long long state = (long long)item.row * H + item.unit;
                        store_pair32(dh + state, {0.0f, 0.0f});
                        if (CELL == LSTM) store_pair32(dc + state, {0.0f, 0.0f});
                    }
                    continue;
                }
                float sum[BACKWARD_TILES][N_TILES][4];
                product(sum, weights, ring + (n - 1) % 2 * n_rows * ring_row, tile * ROWS, Straight{n_rows},
                        int(ring_row), int(ring_row), true);
                sums.put(sum);
            }
            __syncthreads();
            uint32 off = 0;
#pragma unroll
            for (int i = 0; i < ITEMS; ++i) {
                const Item item(i, s, n_rows, H);
                if (!item.exists) continue;
                const long long state = (long long)item.row * H + item.unit;
                Pair total = n == 0 ? load_pair(dh + state) : sums.get(item.local_unit, item.local_row);
                float2 kept = carry.at(s, i);
#if CELL == GRU
                total.first += kept.x;
                total.second += kept.y;
#endif
                bool is_off = is_far(total.first, limit_h) || is_far(total.second, limit_h);
#if CELL == LSTM
                is_off = is_off || is_far(kept.x, limit_c) || is_far(kept.y, limit_c);
#endif
                if (is_off) off |= 1u << item.local_row;
                if (t < 0) {
                    store_pair32(dh + state, total);
#if CELL == LSTM
                    store_pair32(dc + state, {kept.x, kept.y});
#endif
                    continue;
                }
                float slots[2][SLOTS];
                ahead[i].step(total, kept, slots);
                carry.at(s, i) = kept;
                Stored* out = ring + (n % 2 * n_rows + item.row) * ring_row + item.unit;
#pragma unroll
                for (int j = 0; j < PRODUCTS; ++j) publish(out + (long long)j * H, {slots[0][j], slots[1][j]});
                const long long row = (long long)t * B + list[item.row];
#pragma unroll
                for (int j = 0; j < SLOTS; ++j) {
                    const Pair sum = unpack(old[i][j]);
                    store_pair(d + row * d_row + j * H + item.unit,
                               {sum.first + slots[0][j], sum.second + slots[1][j]});
                }
            }
            if (t < 0) continue;
            if (n > 0 && n % every == 0) write_check(far, n / every - 1, tiles, tile, off);
            arrive(counters + tile);
        }
}
#endif
