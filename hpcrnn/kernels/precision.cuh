// How numbers are stored and multiplied. PRECISION is one of:
//   0  float32: products of float32 as three TF32 products each ("3xTF32"), sums in float32
//   1  TF32 products of float32, sums in float32
//   2  float16  stored and multiplied, sums in float32
//   3  bfloat16 stored and multiplied, sums in float32
// Two neighbouring units always travel together: one 32-bit word of 16-bit numbers, or two of float32.
#pragma once
#include "ptx.cuh"

#define FLOAT32 0
#define TF32 1
#define FLOAT16 2
#define BFLOAT16 3

// In an array that blocks exchange, a word no block has written yet. Not a number any of ours makes: every NaN is
// rounded to 0x7FFF in 16 bits, and `written` sees to it in 32.
constexpr uint32 UNWRITTEN = 0xFFFFFFFFu;

#if PRECISION >= FLOAT16
using Stored = uint16;
#else
using Stored = float;
#endif

__device__ __forceinline__ float widen(Stored value) {
#if PRECISION == BFLOAT16
    return bits_to_float(uint32(value) << 16);
#elif PRECISION == FLOAT16
    return widen_f16(value);
#else
    return value;
#endif
}

__device__ __forceinline__ Stored narrow(float value) {
#if PRECISION == BFLOAT16
    return round_bf16(value);
#elif PRECISION == FLOAT16
    return round_f16(value);
#else
    return value;
#endif
}

constexpr int PER_VECTOR = 16 / int(sizeof(Stored));  // numbers in the 16 bytes a thread loads at once

struct Pair {
    float first, second;
};

#if PRECISION >= FLOAT16

using Raw = uint32;  // a pair as it is stored

__device__ __forceinline__ Raw pack(Pair v) {
#if PRECISION == BFLOAT16
    return pack_bf16(v.first, v.second);
#else
    return pack_f16(v.first, v.second);
#endif
}

__device__ __forceinline__ Pair unpack(Raw word) {
#if PRECISION == BFLOAT16
    return {bits_to_float(word << 16), bits_to_float(word & 0xFFFF0000u)};
#else
    return {widen_f16(uint16(word)), widen_f16(uint16(word >> 16))};
#endif
}

__device__ __forceinline__ void publish(Stored* address, Pair v) { store_shared_between_blocks(address, pack(v)); }

#else

using Raw = float2;

__device__ __forceinline__ Raw pack(Pair v) { return make_float2(v.first, v.second); }
__device__ __forceinline__ Pair unpack(Raw v) { return {v.x, v.y}; }

__device__ __forceinline__ uint32 written(float value) {
    const uint32 bits = float_to_bits(value);
    return bits == UNWRITTEN ? 0x7FFFFFFFu : bits;
}

__device__ __forceinline__ void publish(Stored* address, Pair v) {
    store_shared_between_blocks(address, written(v.first), written(v.second));
}

#endif

__device__ __forceinline__ Raw load_raw(const Stored* address) { return *reinterpret_cast<const Raw*>(address); }
__device__ __forceinline__ void store_pair(Stored* address, Pair v) { *reinterpret_cast<Raw*>(address) = pack(v); }
__device__ __forceinline__ Pair load_pair(const float* address) {
    const float2 v = *reinterpret_cast<const float2*>(address);
    return {v.x, v.y};
}
__device__ __forceinline__ void store_pair32(float* address, Pair v) {
    *reinterpret_cast<float2*>(address) = make_float2(v.first, v.second);
}

// The value a reader of the stored number sees.
__device__ __forceinline__ Pair rounded(Pair v) { return unpack(pack(v)); }

__device__ __forceinline__ bool has_unwritten(uint4 v) { return max(max(v.x, v.y), max(v.z, v.w)) == UNWRITTEN; }

// Sixteen bytes of rows g and g + 8 of the weights in lane (g, q), as the tensor cores take them; g = lane / 4 and
// q = lane % 4. The lanes q of a row hold 16 consecutive bytes each, which is another order of the reduction than the
// instruction's own, but the same for both operands.
struct Operand {
    uint32 a[2][4];
#if PRECISION == FLOAT32
    uint32 lost[2][4];  // by rounding to TF32
#endif

    __device__ __forceinline__ Operand(uint4 upper, uint4 lower)
        : a{{upper.x, lower.x, upper.y, lower.y}, {upper.z, lower.z, upper.w, lower.w}} {
#if PRECISION == FLOAT32
#pragma unroll
        for (int s = 0; s < 2; ++s)
#pragma unroll
            for (int i = 0; i < 4; ++i) {
                const float whole = bits_to_float(a[s][i]);
                a[s][i] = round_tf32_here(whole);
                lost[s][i] = float_to_bits(whole - bits_to_float(a[s][i]));
            }
#endif
    }
};

// Sixteen bytes of column g of the state, likewise.
struct Columns {
    uint32 b[2][2];
#if PRECISION == FLOAT32
    uint32 lost[2][2];
#endif

    Columns() = default;
    __device__ __forceinline__ explicit Columns(uint4 v) : b{{v.x, v.y}, {v.z, v.w}} {
#if PRECISION == FLOAT32 || PRECISION == TF32
#pragma unroll
        for (int s = 0; s < 2; ++s)
#pragma unroll
            for (int i = 0; i < 2; ++i) {
                const float whole = bits_to_float(b[s][i]);
                b[s][i] = round_tf32_here(whole);
#if PRECISION == FLOAT32
                lost[s][i] = float_to_bits(whole - bits_to_float(b[s][i]));
#endif
            }
#endif
    }
};

// How a weight is kept for the whole launch.
__device__ __forceinline__ uint4 kept(uint4 v) {
#if PRECISION == TF32
    v = make_uint4(round_tf32(bits_to_float(v.x)), round_tf32(bits_to_float(v.y)), round_tf32(bits_to_float(v.z)),
                   round_tf32(bits_to_float(v.w)));
#endif
    return v;
}

// d += A B over the numbers of 16 bytes a lane: 32 of the reduction in 16 bits, 16 in float32.
__device__ __forceinline__ void multiply(float (&d)[4], const Operand& weights, const Columns& state) {
#if PRECISION == FLOAT32
    // a b = (A + α)(B + β) ≈ A B + (A β + α B) with A, B rounded to TF32 and α, β what that lost. The tensor cores
    // truncate where they add, so only these few terms are added there and the long sum outside, rounded to nearest.
    float sum[4] = {0.0f, 0.0f, 0.0f, 0.0f};
#pragma unroll
    for (int s = 0; s < 2; ++s) {
        mma_tf32(sum, weights.a[s], state.lost[s][0], state.lost[s][1]);
        mma_tf32(sum, weights.lost[s], state.b[s][0], state.b[s][1]);
        mma_tf32(sum, weights.a[s], state.b[s][0], state.b[s][1]);
    }
#pragma unroll
    for (int i = 0; i < 4; ++i) d[i] += sum[i];
#else
#pragma unroll
    for (int s = 0; s < 2; ++s) {
#if PRECISION == BFLOAT16
        mma_bf16(d, weights.a[s], state.b[s][0], state.b[s][1]);
#elif PRECISION == FLOAT16
        mma_f16(d, weights.a[s], state.b[s][0], state.b[s][1]);
#else
        mma_tf32(d, weights.a[s], state.b[s][0], state.b[s][1]);
#endif
    }
#endif
}
