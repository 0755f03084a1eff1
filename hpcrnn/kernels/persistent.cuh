// What persistent kernels are made of: cooperative launches that keep the recurrent weights on chip throughout.
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
#pragma once
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

// Rows of the state, one after another.
struct Straight {
    int rows;
    __device__ __forceinline__ int at(int row) const { return row; }
};

// Rows that a list names.
struct Listed {
    int rows;
    const int* list;
    __device__ __forceinline__ int at(int row) const { return list[row]; }
};

// Load one stage of the state: this lane's 16 bytes of each K block and tile of rows.
template <class Rows>
__device__ __forceinline__ void load_stage(uint4 (&v)[K_STAGE][N_TILES], const Stored* state, int row, Rows rows,
                                           int stride, int column, int K) {
#pragma unroll
    for (int k = 0; k < K_STAGE; ++k)
#pragma unroll
        for (int n = 0; n < N_TILES; ++n) {
            v[k][n] = make_uint4(0, 0, 0, 0);
            const int r = row + n * 8;
            if (r < rows.rows && column + k * K_BLOCK < K)
                v[k][n] = load_shared_between_blocks(state + (long long)rows.at(r) * stride + column + k * K_BLOCK);
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

// sum = weights x state over this warp's part of K. `state` (rows, stride) in its `rows` from the `row`th
// onwards; `exchanged`: other blocks of this launch write it.
template <int M_TILES, class Rows>
__device__ __forceinline__ void product(float (&sum)[M_TILES][N_TILES][4], const Weights<M_TILES>& weights,
                                        const Stored* state, int row, Rows rows, int stride, int K,
                                        bool exchanged) {
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
// This block's columns of R: rows of RT (GATES H, H).
__device__ __forceinline__ void load_weights(Weights<FORWARD_TILES>& weights, const Stored* RT, int H, uint4* storage) {
    weights.load(
        [&](int m) -> const Stored* {
            const int gate = m / UNITS, unit = blockIdx.x * UNITS + m % UNITS;
            return gate < GATES && unit < H ? RT + (long long)(gate * H + unit) * H : nullptr;
        },
        H, storage);
}

// What a step makes of a pair of units.
struct ForwardPair {
    float active[2][GATES];
    Pair next, q;
    float2 state;  // in: the carry of step_forward; out: likewise

    __device__ __forceinline__ void compute(const Raw (&xw)[GATES], const Partials<FORWARD_TILES>& sums,
                                            const Item& item, const float* b, const float* bR, int H) {
        float input[2][GATES], part[2][GATES];
#pragma unroll
        for (int g = 0; g < GATES; ++g) {
            const Pair x = unpack(xw[g]), bias = load_pair(b + g * H + item.unit);
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
        q = {part[0][2], part[1][2]};
#endif
        next.first = step_forward(input[0], part[0], state.x, active[0]);
        next.second = step_forward(input[1], part[1], state.y, active[1]);
    }
};
#else
// This block's rows of R (H, GATES H).
__device__ __forceinline__ void load_weights(Weights<BACKWARD_TILES>& weights, const Stored* R, int H, uint4* storage) {
    weights.load(
        [&](int m) -> const Stored* {
            const int unit = blockIdx.x * UNITS + m;
            return m < UNITS && unit < H ? R + (long long)unit * GATES * H : nullptr;
        },
        PRODUCTS * H, storage);
}

// What a step back needs of the tape for a pair of units.
struct TapePair {
    Raw active[GATES], before, q;
    float2 c_before, c_after;

    // `row` counts the rows of all steps before; B rows a step.
    __device__ __forceinline__ void load(const Stored* gates, const Stored* h, const float* c, const Stored* q_of,
                                         long long row, int unit, int B, int H) {
        const long long at = row * H + unit;
#if CELL == ELMAN
        active[0] = load_raw(h + at + (long long)B * H);
#else
#pragma unroll
        for (int g = 0; g < GATES; ++g) active[g] = load_raw(gates + row * GATES * H + g * H + unit);
#endif
#if CELL == LSTM
        c_before = *reinterpret_cast<const float2*>(c + at);
        c_after = *reinterpret_cast<const float2*>(c + at + (long long)B * H);
#elif CELL == GRU
        before = load_raw(h + at);
        q = load_raw(q_of + at);
#endif
    }

    // Gradients of the gates' inputs from that of the state; `kept` as in step_backward.
    __device__ __forceinline__ void step(Pair dh, float2& kept, float (&slots)[2][SLOTS]) const {
        float values[2][GATES];
#pragma unroll
        for (int g = 0; g < GATES; ++g) {
            const Pair a = unpack(active[g]);
            values[0][g] = a.first;
            values[1][g] = a.second;
        }
        Pair first = {0.0f, 0.0f}, second = {0.0f, 0.0f};
#if CELL == LSTM
        first = {c_before.x, c_before.y};
        second = {c_after.x, c_after.y};
#elif CELL == GRU
        first = unpack(before);
        second = unpack(q);
#endif
        step_backward(values[0], first.first, second.first, dh.first, kept.x, slots[0]);
        step_backward(values[1], first.second, second.second, dh.second, kept.y, slots[1]);
    }
};
#endif
