// Tier 0 of the GRU whose reset gate comes before the recurrent product (Cho et al. 2014): a step has two products, the
// second of what the first has made, and a kernel behind each. Any sizes, any architecture; one thread a unit of a row.
//
//   q (T, B, H)   r h, of every step: what the second product takes
//   cursor, offset and the arrays that are not told of are those of stepwise.cu
//
// Defined by the caller: PRECISION, CELL (the GRU's), and FORWARD or BACKWARD.
#include "cells.cuh"

#ifdef FORWARD
// Behind the first product: the gates r and z.
//   product (B, 2 H)  h R_rz
//   now (B, H)        out: r h
extern "C" __global__ void __launch_bounds__(256)
    forward_gates(const float* __restrict__ product, const float* __restrict__ b, const Stored* xw, Stored* gates,
                  const Stored* __restrict__ h, Stored* q, Stored* now, const int* cursor, int offset, int B, int H) {
    const int index = blockIdx.x * blockDim.x + threadIdx.x;
    if (index >= B * H) return;
    const int row = index / H, unit = index % H;
    const long long t = *cursor + offset, own = (t * B + row) * GATES * H + unit, state = t * B * H + index;
    const long long made = (long long)row * 2 * H + unit;
    const float r = sigmoid(widen(xw[own]) + b[unit] + product[made]);
    const float z = sigmoid(widen(xw[own + H]) + b[H + unit] + product[made + H]);
    gates[own] = narrow(r);
    gates[own + H] = narrow(z);
    const Stored kept = narrow(r * widen(h[state]));
    q[state] = kept;
    now[index] = kept;
}

// Behind the second: the candidate n and the state.
//   product (B, H)  (r h) R_n
//   h_now (B, H)    out: h after the step
extern "C" __global__ void __launch_bounds__(256)
    forward_state(const float* __restrict__ product, const float* __restrict__ b, const Stored* xw, Stored* gates,
                  Stored* h, Stored* h_now, const int* cursor, int offset, int B, int H) {
    const int index = blockIdx.x * blockDim.x + threadIdx.x;
    if (index >= B * H) return;
    const int row = index / H, unit = index % H;
    const long long t = *cursor + offset, states = (long long)B * H;
    const long long own = (t * B + row) * GATES * H + unit;
    const float n = hyperbolic_tangent(widen(xw[own + 2 * H]) + b[2 * H + unit] + product[index]);
    const float z = widen(gates[own + H]), before = widen(h[t * states + index]);
    const Stored next = narrow(n + z * (before - n));
    gates[own + 2 * H] = narrow(n);
    h[(t + 1) * states + index] = next;
    h_now[index] = next;
}
#endif

#ifdef BACKWARD
// Before the first product: from the state's gradient to those of n and z.
//   dh (B, H)     what comes back from the step after by way of r and z
//   carry (B, H)  what comes back past them; out: dh z
//   d (T, B, 3 H)  out: the parts of z and n
//   now (B, H)    out: the gradient of n's input
extern "C" __global__ void __launch_bounds__(256)
    backward_state(const float* __restrict__ dh, float* carry, const Stored* __restrict__ gates,
                   const Stored* __restrict__ h, const Stored* __restrict__ dy, Stored* d, Stored* now,
                   const int* cursor, int offset, int B, int H) {
    const int index = blockIdx.x * blockDim.x + threadIdx.x;
    if (index >= B * H) return;
    const int row = index / H, unit = index % H;
    const long long t = *cursor - offset, own = (t * B + row) * GATES * H + unit, state = t * B * H + index;
    const float z = widen(gates[own + H]), n = widen(gates[own + 2 * H]);
    const float total = dh[index] + carry[index] + widen(dy[state]);
    const Stored dn = narrow(total * (1.0f - z) * (1.0f - n * n));
    carry[index] = total * z;
    d[own + H] = narrow(total * (widen(h[state]) - n) * z * (1.0f - z));
    d[own + 2 * H] = dn;
    now[index] = dn;
}

// Before the second: from the gradient of r h to that of r.
//   drh (B, H)      dn R_n^T
//   carry (B, H)    in and out: what of it reaches h past the gates is added
//   d (T, B, 3 H)   out: the part of r
//   now (B, 2 H)    out: gradients of the inputs of r and z
extern "C" __global__ void __launch_bounds__(256)
    backward_gates(const float* __restrict__ drh, float* carry, const Stored* __restrict__ gates,
                   const Stored* __restrict__ h, Stored* d, Stored* now, const int* cursor, int offset, int B, int H) {
    const int index = blockIdx.x * blockDim.x + threadIdx.x;
    if (index >= B * H) return;
    const int row = index / H, unit = index % H;
    const long long t = *cursor - offset, own = (t * B + row) * GATES * H + unit, state = t * B * H + index;
    const float r = widen(gates[own]);
    const Stored dr = narrow(drh[index] * widen(h[state]) * r * (1.0f - r));
    carry[index] += drh[index] * r;
    d[own] = dr;
    const long long made = (long long)row * 2 * H + unit;
    now[made] = dr;
    now[made + H] = d[own + H];
}
#endif
