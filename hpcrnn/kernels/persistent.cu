// Persistent recurrent kernels: one cooperative launch a chunk of time, the recurrent weights on chip throughout; how
// they are built is told in persistent.cuh. Defined by the caller: what that wants.
#include "persistent.cuh"

#ifdef FORWARD
// Forward over T steps.
//   RT (GATES H, H)     the recurrent weights transposed
//   b (GATES H), bR (H) biases; bR: GRU only
//   xw (T, B, GATES H)  x W
//   gates (T, B, GATES H)  out, if `training` and not Elman: the gates' activations; may be xw
//   h (T + 1, B, H)     row 0 given; with EXCHANGE 1 the others UNWRITTEN
//   c (T + 1, B, H)     LSTM only; row 0 given. Out: row T, and if `training` all
//   q (T, B, H)         GRU only; out, if `training`: h R_n + bR
//   counters (gridDim.y SUBTILES)  zero; EXCHANGE 0 only
extern "C" __global__ void __launch_bounds__(THREADS, 1)
    forward(const Stored* __restrict__ RT, const float* __restrict__ b, const float* __restrict__ bR, const Stored* xw,
            Stored* gates, Stored* h, float* c, Stored* q, uint32* counters, int T, int B, int H, int training) {
    extern __shared__ uint4 shared_memory[];
    using Sums = Partials<FORWARD_TILES>;
    Weights<FORWARD_TILES> weights;
    load_weights(weights, RT, H, shared_memory);
    float* partials = reinterpret_cast<float*>(shared_memory) + Weights<FORWARD_TILES>::BYTES / 4;
    Carry carry{reinterpret_cast<float2*>(partials + 2 * Sums::SIZE)};

    const long long gate_row = (long long)GATES * H;
    for (int s = 0; s < SUBTILES; ++s)
#pragma unroll
        for (int i = 0; i < ITEMS; ++i) {
            const Item item(i, s, B, H);
            if (!item.exists) continue;
            const long long at = (long long)item.row * H + item.unit;
#if CELL == LSTM
            const Pair start = load_pair(c + at);
            carry.at(s, i) = make_float2(start.first, start.second);
#elif CELL == GRU
            const Pair start = unpack(load_raw(h + at));
            carry.at(s, i) = make_float2(start.first, start.second);
#endif
        }

    // The input's part of a step is on its way while the step before is worked on.
    Raw ahead[ITEMS][GATES];
    auto prefetch = [&](int t, int s) {
#pragma unroll
        for (int i = 0; i < ITEMS; ++i) {
            const Item item(i, s, B, H);
            if (!item.exists || t >= T) continue;
            const Stored* from = xw + ((long long)t * B + item.row) * gate_row + item.unit;
#pragma unroll
            for (int g = 0; g < GATES; ++g) ahead[i][g] = load_raw(from + g * H);
        }
    };
    prefetch(0, 0);

    for (int t = 0; t < T; ++t)
        for (int s = 0; s < SUBTILES; ++s) {
            const int first_row = (blockIdx.y * SUBTILES + s) * ROWS;
            [[maybe_unused]] uint32* counter = counters + blockIdx.y * SUBTILES + s;
            const Sums sums{partials + (t * SUBTILES + s) % 2 * Sums::SIZE};
            {
#if EXCHANGE == 0
                wait_for(counter, t * gridDim.x);
#endif
                float sum[FORWARD_TILES][N_TILES][4];
                product(sum, weights, h + (long long)t * B * H, first_row, Straight{B}, H, H, t > 0);
                sums.put(sum);
            }
            __syncthreads();
#pragma unroll
            for (int i = 0; i < ITEMS; ++i) {
                const Item item(i, s, B, H);
                if (!item.exists) continue;
                ForwardPair pair;
                pair.state = CELL == ELMAN ? make_float2(0.0f, 0.0f) : carry.at(s, i);
                pair.compute(ahead[i], sums, item, b, bR, H);
                const long long row = (long long)t * B + item.row, after = (row + B) * H + item.unit;
                publish(h + after, pair.next);
#if CELL == LSTM
                carry.at(s, i) = pair.state;
                if (training || t == T - 1) store_pair32(c + after, {pair.state.x, pair.state.y});
#elif CELL == GRU
                const Pair seen = rounded(pair.next);
                carry.at(s, i) = make_float2(seen.first, seen.second);
                if (training) store_pair(q + row * H + item.unit, pair.q);
#endif
#if CELL != ELMAN
                if (training)
#pragma unroll
                    for (int g = 0; g < GATES; ++g)
                        store_pair(gates + row * gate_row + g * H + item.unit, {pair.active[0][g], pair.active[1][g]});
#endif
            }
            if (s + 1 < SUBTILES)
                prefetch(t, s + 1);
            else
                prefetch(t + 1, 0);
#if EXCHANGE == 0
            arrive(counter);
#endif
        }
}
#endif

#ifdef BACKWARD
// Backward over T steps.
//   R (H, GATES H)         the recurrent weights
//   gates (T, B, GATES H)  the gates' activations; not Elman
//   h (T + 1, B, H), c (T + 1, B, H), q (T, B, H)  as forward left them
//   dy (T, B, H)           gradient of h after each step
//   d (T, B, SLOTS H)      out: gradients of the gates' inputs; with EXCHANGE 1 UNWRITTEN
//   dh, dc (B, H)          in: gradient of the final state beyond dy; out: of the state before the first step
//   counters (gridDim.y SUBTILES)  zero; EXCHANGE 0 only
extern "C" __global__ void __launch_bounds__(THREADS, 1)
    backward(const Stored* __restrict__ R, const Stored* __restrict__ gates, const Stored* __restrict__ h,
             const float* __restrict__ c, const Stored* __restrict__ q, const Stored* __restrict__ dy, Stored* d,
             float* dh, float* dc, uint32* counters, int T, int B, int H) {
    extern __shared__ uint4 shared_memory[];
    using Sums = Partials<BACKWARD_TILES>;
    const int K = PRODUCTS * H;
    Weights<BACKWARD_TILES> weights;
    load_weights(weights, R, H, shared_memory);
    float* partials = reinterpret_cast<float*>(shared_memory) + Weights<BACKWARD_TILES>::BYTES / 4;
    Carry carry{reinterpret_cast<float2*>(partials + 2 * Sums::SIZE)};

    const long long d_row = (long long)SLOTS * H;
    for (int s = 0; s < SUBTILES; ++s)
#pragma unroll
        for (int i = 0; i < ITEMS; ++i) {
            const Item item(i, s, B, H);
            if (!item.exists) continue;
            const Pair start = CELL == LSTM ? load_pair(dc + (long long)item.row * H + item.unit) : Pair{0.0f, 0.0f};
            carry.at(s, i) = make_float2(start.first, start.second);
        }

    TapePair ahead[ITEMS];
    Raw above[ITEMS];  // dy
    auto prefetch = [&](int t, int s) {
#pragma unroll
        for (int i = 0; i < ITEMS; ++i) {
            const Item item(i, s, B, H);
            if (!item.exists || t < 0) continue;
            const long long row = (long long)t * B + item.row;
            above[i] = load_raw(dy + row * H + item.unit);
            ahead[i].load(gates, h, c, q, row, item.unit, B, H);
        }
    };
    prefetch(T - 1, 0);

    for (int t = T - 1; t >= -1; --t)  // the step before the first: its state's gradient, and no gates
        for (int s = 0; s < SUBTILES; ++s) {
            const int first_row = (blockIdx.y * SUBTILES + s) * ROWS;
            [[maybe_unused]] uint32* counter = counters + blockIdx.y * SUBTILES + s;
            const Sums sums{partials + ((T - 1 - t) * SUBTILES + s) % 2 * Sums::SIZE};
            const bool last = t == T - 1;  // nothing comes back from beyond it but dh
            if (!last) {
#if EXCHANGE == 0
                wait_for(counter, (T - 1 - t) * gridDim.x);
#endif
                float sum[BACKWARD_TILES][N_TILES][4];
                product(sum, weights, d + (t + 1) * B * d_row, first_row, Straight{B}, int(d_row), K, true);
                sums.put(sum);
            }
            __syncthreads();
#pragma unroll
            for (int i = 0; i < ITEMS; ++i) {
                const Item item(i, s, B, H);
                if (!item.exists) continue;
                const long long state = (long long)item.row * H + item.unit;
                Pair total = last ? load_pair(dh + state) : sums.get(item.local_unit, item.local_row);
                float2 kept = carry.at(s, i);
#if CELL == GRU
                total.first += kept.x;
                total.second += kept.y;
#endif
                if (t < 0) {
                    store_pair32(dh + state, total);
#if CELL == LSTM
                    store_pair32(dc + state, {kept.x, kept.y});
#endif
                    continue;
                }
                const Pair from_above = unpack(above[i]);
                float slots[2][SLOTS];
                ahead[i].step({total.first + from_above.first, total.second + from_above.second}, kept, slots);
                Stored* out = d + ((long long)t * B + item.row) * d_row + item.unit;
#pragma unroll
                for (int j = 0; j < SLOTS; ++j) publish(out + (long long)j * H, {slots[0][j], slots[1][j]});
                carry.at(s, i) = kept;
            }
            if (s + 1 < SUBTILES)
                prefetch(t, s + 1);
            else
                prefetch(t - 1, 0);
#if EXCHANGE == 0
            arrive(counter);
#endif
        }
}
#endif
