// The pointwise mathematics of the cells for one unit of one row, in float32: the same equations as hpcrnn/cells.
//
//   CELL       0 Elman, 1 GRU (reset after the recurrent product), 2 LSTM
//   RELU       1: the Elman cell's activation is relu
//   GATES      gates of the cell, in the order of hpcrnn/cells: LSTM i, f, g, o; GRU r, z, n
//   SLOTS      gradients of a step: one a gate; the GRU's are r, z, q, n, with q = h R_n + bR
//   PRODUCTS   how many of these, from the first, take part in the recurrent product of the backward pass
#pragma once
#include "precision.cuh"

#define ELMAN 0
#define GRU 1
#define LSTM 2

#if CELL == LSTM
[[maybe_unused]] constexpr int GATES = 4, SLOTS = 4, PRODUCTS = 4;
#elif CELL == GRU
[[maybe_unused]] constexpr int GATES = 3, SLOTS = 4, PRODUCTS = 3;
#else
[[maybe_unused]] constexpr int GATES = 1, SLOTS = 1, PRODUCTS = 1;
#endif

__device__ __forceinline__ float sigmoid(float a) {
#if PRECISION >= FLOAT16
    return __fdividef(1.0f, 1.0f + __expf(-a));
#else
    return 1.0f / (1.0f + expf(-a));
#endif
}

__device__ __forceinline__ float hyperbolic_tangent(float a) {
#if PRECISION >= FLOAT16
    return __fdividef(2.0f, 1.0f + __expf(-2.0f * a)) - 1.0f;
#else
    return tanhf(a);
#endif
}

// One step forward.
//   input (GATES)    x W + b
//   product (GATES)  h R, for the GRU's n with bR
//   carry            in: c (LSTM) or h (GRU) of the step before; out: c
//   active (GATES)   out: the gates' activations
//   returns h
__device__ __forceinline__ float step_forward(const float (&input)[GATES], const float (&product)[GATES], float& carry,
                                              float (&active)[GATES]) {
#if CELL == LSTM
    active[0] = sigmoid(input[0] + product[0]);
    active[1] = sigmoid(input[1] + product[1]);
    active[2] = hyperbolic_tangent(input[2] + product[2]);
    active[3] = sigmoid(input[3] + product[3]);
    carry = active[1] * carry + active[0] * active[2];
    return active[3] * hyperbolic_tangent(carry);
#elif CELL == GRU
    active[0] = sigmoid(input[0] + product[0]);
    active[1] = sigmoid(input[1] + product[1]);
    active[2] = hyperbolic_tangent(input[2] + active[0] * product[2]);
    return active[2] + active[1] * (carry - active[2]);
#else
    const float a = input[0] + product[0];
    active[0] = RELU ? fmaxf(a, 0.0f) : hyperbolic_tangent(a);
    return active[0];
#endif
}

// One step backward.
//   active (GATES)   activations; Elman: h after the step
//   before           c (LSTM) or h (GRU) before the step
//   after            c (LSTM) after the step, q (GRU)
//   dh               gradient of h after the step
//   carry            in: gradient of c after the step (LSTM); out: of c before it, or what of dh reaches h before
//                    the step past the recurrent product (GRU)
//   d (SLOTS)        out: gradients of the gates' inputs
__device__ __forceinline__ void step_backward(const float (&active)[GATES], float before, float after, float dh,
                                              float& carry, float (&d)[SLOTS]) {
#if CELL == LSTM
    const float tanh_c = hyperbolic_tangent(after);
    const float dc = carry + dh * active[3] * (1.0f - tanh_c * tanh_c);
    d[0] = dc * active[2] * active[0] * (1.0f - active[0]);
    d[1] = dc * before * active[1] * (1.0f - active[1]);
    d[2] = dc * active[0] * (1.0f - active[2] * active[2]);
    d[3] = dh * tanh_c * active[3] * (1.0f - active[3]);
    carry = dc * active[1];
#elif CELL == GRU
    d[3] = dh * (1.0f - active[1]) * (1.0f - active[2] * active[2]);
    d[2] = d[3] * active[0];
    d[1] = dh * (before - active[2]) * active[1] * (1.0f - active[1]);
    d[0] = d[3] * after * active[0] * (1.0f - active[0]);
    carry = dh * active[1];
#else
    d[0] = dh * (RELU ? (active[0] > 0.0f ? 1.0f : 0.0f) : 1.0f - active[0] * active[0]);
#endif
}
