// Persistent recurrent kernels: one cooperative launch a chunk of time, the recurrent weights on chip throughout.
//
// A block owns UNITS hidden units, with all their gates, of ROWS x SUBTILES rows of the batch; blockIdx.x counts the
// units' tiles, blockIdx.y the rows'. Each step it needs the whole previous state of its rows, from all blocks with
// the same blockIdx.y, and makes its own units' part of the next.
//
//   weights (M, K)   M = 16 * M_TILES: the block's columns of R forward, its rows of R backward; K: the reduction
//   state   (K, N)   N = ROWS: h of the step before forward, gradients of the step after backward
//
// Every warp holds all M rows of its own part of K, K_BLOCKS times the 64 bytes of a row that four lanes load
// together: K_IN_REGISTERS of them in registers, the rest in shared memory. So a warp reads the state straight from
// the L2 cache into the operands of the tensor cores, each byte once a block, and waits for nothing but its own part.
// The warps' partial sums meet in shared memory, twice buffered: one __syncthreads a step.
//
// States go to fresh addresses at every step. EXCHANGE says how a block knows that they are there:
//   0  a counter for each tile of rows: red.release after writing, ld.acquire before reading
//   1  the words themselves: they hold UNWRITTEN before (the caller fills them), and whoever reads that reads again
// Between a subtile's step and its next lie the other subtiles' steps, which hides the time a word takes to arrive.
//
// Defined by the caller: PRECISION, CELL, RELU, EXCHANGE, WARPS, UNITS (even), ROWS (a multiple of 8), SUBTILES,
// K_BLOCKS, K_IN_REGISTERS, K_STAGE (K blocks loaded at a time), SHARED_BYTES, and FORWARD or BACKWARD.
#include "cells.cuh"

constexpr int THREADS = 32 * WARPS;
constexpr int N_TILES = ROWS / 8;
constexpr int K_LANE = PER_VECTOR;       // numbers of a K block in one lane
constexpr int K_BLOCK = 4 * K_LANE;      // and in the four lanes of a row
constexpr int STAGES = K_BLOCKS / K_STAGE;
constexpr int PAIRS = UNITS / 2 * ROWS;  // pairs of units the pointwise part of a step works on
constexpr int ITEMS = (PAIRS + THREADS - 1) / THREADS;
constexpr int SPIN_LIMIT = 1 << 24;      // seconds, where a step takes microseconds

static_assert(K_BLOCKS % K_STAGE == 0, "the stages must divide the K blocks");
static_assert(UNITS % 2 == 0 && ROWS % 8 == 0, "units travel in pairs, rows in eights");

// Weights of `M_TILES` times 16 rows, over this warp's part of K.
template <int M_TILES>
struct Weights {
    static constexpr int IN_SHARED = K_BLOCKS - K_IN_REGISTERS;
    static constexpr int BYTES = M_TILES * IN_SHARED * 2 * THREADS * int(sizeof(uint4));

    uint4 held[M_TILES][K_IN_REGISTERS > 0 ? K_IN_REGISTERS : 1][2];
    uint4* shared;

    // `row_address(m)` is where row m of the block begins, or null where there is none.
    template <class RowAddress>
    __device__ __forceinline__ void load(RowAddress row_address, int K, uint4* storage) {
        shared = storage;
        const int lane = threadIdx.x % 32, first = threadIdx.x / 32 * K_BLOCKS * K_BLOCK + lane % 4 * K_LANE;
#pragma unroll
        for (int m = 0; m < M_TILES; ++m)
#pragma unroll
            for (int half = 0; half < 2; ++half) {
                const Stored* row = row_address(m * 16 + half * 8 + lane / 4);
#pragma unroll
                for (int k = 0; k < K_BLOCKS; ++k) {
                    uint4 v = make_uint4(0, 0, 0, 0);
                    const int column = first + k * K_BLOCK;
                    if (row && column < K) v = kept(*reinterpret_cast<const uint4*>(row + column));
                    if (k < K_IN_REGISTERS)
                        held[m][k][half] = v;
                    else
                        shared[slot(m, k, half)] = v;
                }
            }
    }

    __device__ __forceinline__ uint4 get(int m, int k, int half) const {
        return k < K_IN_REGISTERS ? held[m][k][half] : shared[slot(m, k, half)];
    }

    static __device__ __forceinline__ int slot(int m, int k, int half) {
        return ((m * IN_SHARED + k - K_IN_REGISTERS) * 2 + half) * THREADS + threadIdx.x;
    }
};

// What lies in shared memory behind the weights.
template <int M_TILES>
struct Partials {
    // Apart by 4 modulo 16 words: neither the tensor cores' layout nor the reading by rows meets a bank twice.
    static constexpr int STRIDE = 16 * M_TILES + 4;
    static constexpr int SIZE = WARPS * ROWS * STRIDE;

    float* buffer;

    // This warp's sums to shared memory: lane (g, q) has rows g and g + 8, columns 2q and 2q + 1 of each tile.
    __device__ __forceinline__ void put(const float (&sum)[M_TILES][N_TILES][4]) const {
        const int lane = threadIdx.x % 32;
        float* mine = buffer + (threadIdx.x / 32 * ROWS + lane % 4 * 2) * STRIDE + lane / 4;
#pragma unroll
        for (int m = 0; m < M_TILES; ++m)
#pragma unroll
            for (int n = 0; n < N_TILES; ++n)
#pragma unroll
                for (int i = 0; i < 4; ++i) mine[(n * 8 + i % 2) * STRIDE + m * 16 + i / 2 * 8] = sum[m][n][i];
    }

    // The sum over the warps of rows m and m + 1, column n.
    __device__ __forceinline__ Pair get(int m, int n) const {
        Pair sum = {0.0f, 0.0f};
#pragma unroll
        for (int w = 0; w < WARPS; ++w) {
            const Pair part = load_pair(buffer + (w * ROWS + n) * STRIDE + m);
            sum.first += part.first;
            sum.second += part.second;
        }
        return sum;
    }
};

// Wait until `counter` blocks have arrived; all threads of the block together.
__device__ __forceinline__ void wait_for(const uint32* counter, uint32 count) {
    if (threadIdx.x == 0) {
        int spins = 0;
        while (load_acquire(counter) < count)
            if (++spins > SPIN_LIMIT) give_up();
    }
    __syncthreads();
}

__device__ __forceinline__ void arrive(uint32* counter) {
    __syncthreads();
    if (threadIdx.x == 0) add_release(counter, 1);
}

// Load one stage of the state: this lane's 16 bytes of each K block and tile of rows.
__device__ __forceinline__ void load_stage(uint4 (&v)[K_STAGE][N_TILES], const Stored* state, int row, int rows,
                                           int stride, int column, int K) {
#pragma unroll
    for (int k = 0; k < K_STAGE; ++k)
#pragma unroll
        for (int n = 0; n < N_TILES; ++n) {
            v[k][n] = make_uint4(0, 0, 0, 0);
            if (row + n * 8 < rows && column + k * K_BLOCK < K)
                v[k][n] = load_shared_between_blocks(state + (long long)(row + n * 8) * stride + column + k * K_BLOCK);
        }
}

__device__ __forceinline__ bool is_incomplete(const uint4 (&v)[K_STAGE][N_TILES]) {
    bool missing = false;
#pragma unroll
    for (int k = 0; k < K_STAGE; ++k)
#pragma unroll
        for (int n = 0; n < N_TILES; ++n) missing |= has_unwritten(v[k][n]);
    return any_in_warp(missing);
}

// sum += one K block of the weights x the same of the state.
template <int M_TILES>
__device__ __forceinline__ void multiply_block(float (&sum)[M_TILES][N_TILES][4], const Weights<M_TILES>& weights,
                                               int k, const uint4 (&v)[N_TILES]) {
    // The state's tiles are taken apart once for all of the weights'.
    Columns tiles[N_TILES];
#pragma unroll
    for (int n = 0; n < N_TILES; ++n) tiles[n] = Columns(v[n]);
#pragma unroll
    for (int m = 0; m < M_TILES; ++m) {
        const Operand rows_of_m(weights.get(m, k, 0), weights.get(m, k, 1));
#pragma unroll
        for (int n = 0; n < N_TILES; ++n) multiply(sum[m][n], rows_of_m, tiles[n]);
    }
}

// sum = weights x state over this warp's part of K. `state` (rows, stride) in rows `row` onwards; `exchanged`: other
// blocks of this launch write it.
template <int M_TILES>
__device__ __forceinline__ void product(float (&sum)[M_TILES][N_TILES][4], const Weights<M_TILES>& weights,
                                        const Stored* state, int row, int rows, int stride, int K, bool exchanged) {
    const int lane = threadIdx.x % 32;
    const int column = threadIdx.x / 32 * K_BLOCKS * K_BLOCK + lane % 4 * K_LANE;
    row += lane / 4;
#pragma unroll
    for (int m = 0; m < M_TILES; ++m)
#pragma unroll
        for (int n = 0; n < N_TILES; ++n)
#pragma unroll
            for (int i = 0; i < 4; ++i) sum[m][n][i] = 0.0f;

    uint4 v[2][K_STAGE][N_TILES];
    load_stage(v[0], state, row, rows, stride, column, K);
#pragma unroll
    for (int stage = 0; stage < STAGES; ++stage) {
        const bool more = stage + 1 < STAGES;
        const int here = column + stage * K_STAGE * K_BLOCK, next = here + K_STAGE * K_BLOCK;
        if (more) load_stage(v[(stage + 1) % 2], state, row, rows, stride, next, K);
#if EXCHANGE == 1
        int spins = 0;
        while (exchanged && is_incomplete(v[stage % 2])) {
            load_stage(v[stage % 2], state, row, rows, stride, here, K);
            if (more) load_stage(v[(stage + 1) % 2], state, row, rows, stride, next, K);
            if (++spins > SPIN_LIMIT) give_up();
        }
#endif
#pragma unroll
        for (int k = 0; k < K_STAGE; ++k) multiply_block(sum, weights, stage * K_STAGE + k, v[stage % 2][k]);
    }
}

// One pair of units of one row: where it is, and whether it exists.
struct Item {
    int unit, row;  // the first of the two units, over the whole layer; the row, over the whole batch
    int local_unit, local_row;
    bool exists;

    __device__ __forceinline__ Item(int item, int subtile, int B, int H) {
        const int pair = item * THREADS + threadIdx.x;
        local_unit = pair % (UNITS / 2) * 2;
        local_row = pair / (UNITS / 2);
        unit = blockIdx.x * UNITS + local_unit;
        row = (blockIdx.y * SUBTILES + subtile) * ROWS + local_row;
        exists = pair < PAIRS && unit < H && row < B;
    }
};

[[maybe_unused]] constexpr int FORWARD_TILES = (GATES * UNITS + 15) / 16;
[[maybe_unused]] constexpr int BACKWARD_TILES = (UNITS + 15) / 16;

// What a thread keeps from step to step for each of its pairs: shared memory, so that subtiles need no registers.
struct Carry {
    float2* values;
    __device__ __forceinline__ float2& at(int subtile, int item) {
        return values[(subtile * ITEMS + item) * THREADS + threadIdx.x];
    }
};
constexpr int CARRY_BYTES = SUBTILES * ITEMS * THREADS * int(sizeof(float2));

#ifdef FORWARD
static_assert(Weights<FORWARD_TILES>::BYTES + 2 * Partials<FORWARD_TILES>::SIZE * 4 + CARRY_BYTES == SHARED_BYTES,
              "the caller counts the shared memory as the kernel does");
#else
static_assert(Weights<BACKWARD_TILES>::BYTES + 2 * Partials<BACKWARD_TILES>::SIZE * 4 + CARRY_BYTES ==
                  SHARED_BYTES,
              "the caller counts the shared memory as the kernel does");
#endif

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
    weights.load(
        [&](int m) -> const Stored* {
            const int gate = m / UNITS, unit = blockIdx.x * UNITS + m % UNITS;
            return gate < GATES && unit < H ? RT + (long long)(gate * H + unit) * H : nullptr;
        },
        H, shared_memory);
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
                product(sum, weights, h + (long long)t * B * H, first_row, B, H, H, t > 0);
                sums.put(sum);
            }
            __syncthreads();
#pragma unroll
            for (int i = 0; i < ITEMS; ++i) {
                const Item item(i, s, B, H);
                if (!item.exists) continue;
                float input[2][GATES], part[2][GATES], active[2][GATES];
#pragma unroll
                for (int g = 0; g < GATES; ++g) {
                    const Pair x = unpack(ahead[i][g]), bias = load_pair(b + g * H + item.unit);
                    const Pair sum = sums.get(g * UNITS + item.local_unit, item.local_row);
                    input[0][g] = x.first + bias.first;
                    input[1][g] = x.second + bias.second;
                    part[0][g] = sum.first;
                    part[1][g] = sum.second;
                }
#if CELL == GRU
                const Pair extra = load_pair(bR + item.unit);
                part[0][2] += extra.first;
                part[1][2] += extra.second;
#endif
                float2 state = CELL == ELMAN ? make_float2(0.0f, 0.0f) : carry.at(s, i);
                Pair next;
                next.first = step_forward(input[0], part[0], state.x, active[0]);
                next.second = step_forward(input[1], part[1], state.y, active[1]);
                const long long row = (long long)t * B + item.row, after = (row + B) * H + item.unit;
                publish(h + after, next);
#if CELL == LSTM
                carry.at(s, i) = state;
                if (training || t == T - 1) store_pair32(c + after, {state.x, state.y});
#elif CELL == GRU
                next = rounded(next);
                carry.at(s, i) = make_float2(next.first, next.second);
                if (training) store_pair(q + row * H + item.unit, {part[0][2], part[1][2]});
#endif
#if CELL != ELMAN
                if (training)
#pragma unroll
                    for (int g = 0; g < GATES; ++g)
                        store_pair(gates + row * gate_row + g * H + item.unit, {active[0][g], active[1][g]});
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
    weights.load(
        [&](int m) -> const Stored* {
            const int unit = blockIdx.x * UNITS + m;
            return m < UNITS && unit < H ? R + (long long)unit * GATES * H : nullptr;
        },
        K, shared_memory);
    float* partials = reinterpret_cast<float*>(shared_memory) + Weights<BACKWARD_TILES>::BYTES / 4;
    Carry carry{reinterpret_cast<float2*>(partials + 2 * Sums::SIZE)};

    const long long gate_row = (long long)GATES * H, d_row = (long long)SLOTS * H;
    for (int s = 0; s < SUBTILES; ++s)
#pragma unroll
        for (int i = 0; i < ITEMS; ++i) {
            const Item item(i, s, B, H);
            if (!item.exists) continue;
            const Pair start = CELL == LSTM ? load_pair(dc + (long long)item.row * H + item.unit) : Pair{0.0f, 0.0f};
            carry.at(s, i) = make_float2(start.first, start.second);
        }

    struct Ahead {
        Raw active[GATES], dy, before, q;
        float2 c_before, c_after;
    };
    Ahead ahead[ITEMS];
    auto prefetch = [&](int t, int s) {
#pragma unroll
        for (int i = 0; i < ITEMS; ++i) {
            const Item item(i, s, B, H);
            if (!item.exists || t < 0) continue;
            const long long row = (long long)t * B + item.row, at = row * H + item.unit;
            ahead[i].dy = load_raw(dy + at);
#if CELL == ELMAN
            ahead[i].active[0] = load_raw(h + at + (long long)B * H);
#else
#pragma unroll
            for (int g = 0; g < GATES; ++g) ahead[i].active[g] = load_raw(gates + row * gate_row + g * H + item.unit);
#endif
#if CELL == LSTM
            ahead[i].c_before = *reinterpret_cast<const float2*>(c + at);
            ahead[i].c_after = *reinterpret_cast<const float2*>(c + at + (long long)B * H);
#elif CELL == GRU
            ahead[i].before = load_raw(h + at);
            ahead[i].q = load_raw(q + at);
#endif
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
                product(sum, weights, d + (t + 1) * B * d_row, first_row, B, int(d_row), K, true);
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
                float active[2][GATES], slots[2][SLOTS];
#pragma unroll
                for (int g = 0; g < GATES; ++g) {
                    const Pair a = unpack(ahead[i].active[g]);
                    active[0][g] = a.first;
                    active[1][g] = a.second;
                }
                const Pair above = unpack(ahead[i].dy);
                Pair before = {0.0f, 0.0f}, after = {0.0f, 0.0f};
#if CELL == LSTM
                before = {ahead[i].c_before.x, ahead[i].c_before.y};
                after = {ahead[i].c_after.x, ahead[i].c_after.y};
#elif CELL == GRU
                before = unpack(ahead[i].before);
                after = unpack(ahead[i].q);
#endif
                step_backward(active[0], before.first, after.first, total.first + above.first, kept.x, slots[0]);
                step_backward(active[1], before.second, after.second, total.second + above.second, kept.y, slots[1]);
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
