// Tier 0: what stands beside the GEMM of each step. Any sizes, any architecture; one thread a unit of a row.
//
// The steps of a graph do not know where in the sequence they are: they find it in `cursor`, and their own place in the
// graph is `offset`. The GEMM's operands do not move: `h_now` and `d_now` hold the step's own copy of the state.
//
// Defined by the caller: PRECISION, CELL, RELU, and FORWARD or BACKWARD.
#include "cells.cuh"

#ifdef FORWARD
// One step forward.
//   product (B, GATES H)   h R
//   cursor, offset         the step is *cursor + offset
//   h_now (B, H)           out: h after the step
//   the other arrays are those of persistent.cu
extern "C" __global__ void __launch_bounds__(256)
    forward(const float* __restrict__ product, const float* __restrict__ b, const float* __restrict__ bR,
            const Stored* xw, Stored* gates, Stored* h, float* c, Stored* q, Stored* h_now, const int* cursor,
            int offset, int B, int H, int training) {
    const int index = blockIdx.x * blockDim.x + threadIdx.x;
    if (index >= B * H) return;
    const int row = index / H, unit = index % H;
    const long long t = *cursor + offset, states = (long long)B * H;
    const long long own = (t * B + row) * GATES * H + unit;
    float input[GATES], part[GATES], active[GATES];
#pragma unroll
    for (int g = 0; g < GATES; ++g) {
        input[g] = widen(xw[own + g * H]) + b[g * H + unit];
        part[g] = product[(long long)row * GATES * H + g * H + unit];
    }
    float carry = 0.0f;
#if CELL == LSTM
    carry = c[t * states + index];
#elif CELL == GRU
    carry = widen(h[t * states + index]);
    part[2] += bR[unit];
    if (training) q[t * states + index] = narrow(part[2]);
#endif
    const Stored next = narrow(step_forward(input, part, carry, active));
    h[(t + 1) * states + index] = next;
    h_now[index] = next;
#if CELL == LSTM
    c[(t + 1) * states + index] = carry;
#endif
#if CELL != ELMAN
    if (training)
#pragma unroll
        for (int g = 0; g < GATES; ++g) gates[own + g * H] = narrow(active[g]);
#endif
}
#endif

#ifdef BACKWARD
// One step backward.
//   dh (B, H)              what comes back from the step after, without `carry`
//   carry (B, H)           as in cells.cuh; GRU: to be added to dh here
//   d_now (B, PRODUCTS H)  out: what the recurrent product takes
//   cursor, offset         the step is *cursor - offset
extern "C" __global__ void __launch_bounds__(256)
    backward(const float* __restrict__ dh, float* carry, const Stored* __restrict__ gates, const Stored* __restrict__ h,
             const float* __restrict__ c, const Stored* __restrict__ q, const Stored* __restrict__ dy, Stored* d,
             Stored* d_now, const int* cursor, int offset, int B, int H) {
    const int index = blockIdx.x * blockDim.x + threadIdx.x;
    if (index >= B * H) return;
    const int row = index / H, unit = index % H;
    const long long t = *cursor - offset, states = (long long)B * H;
    float active[GATES], slots[SLOTS], before = 0.0f, after = 0.0f;
#if CELL == ELMAN
    active[0] = widen(h[(t + 1) * states + index]);
#else
#pragma unroll
    for (int g = 0; g < GATES; ++g) active[g] = widen(gates[(t * B + row) * GATES * H + g * H + unit]);
#endif
    float kept = CELL == ELMAN ? 0.0f : carry[index];
    float total = dh[index] + widen(dy[t * states + index]);
#if CELL == LSTM
    before = c[t * states + index];
    after = c[(t + 1) * states + index];
#elif CELL == GRU
    before = widen(h[t * states + index]);
    after = widen(q[t * states + index]);
    total += kept;
#endif
    step_backward(active, before, after, total, kept, slots);
#if CELL != ELMAN
    carry[index] = kept;
#endif
#pragma unroll
    for (int j = 0; j < SLOTS; ++j) d[(t * B + row) * SLOTS * H + j * H + unit] = narrow(slots[j]);
#pragma unroll
    for (int j = 0; j < PRODUCTS; ++j) d_now[(long long)row * PRODUCTS * H + j * H + unit] = narrow(slots[j]);
}
#endif
