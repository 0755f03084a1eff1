// Stands in for ptx.cuh where CUDA C is compiled as C++: a fiber for each CUDA thread, switched only where threads
// wait for one another, in an order drawn at random; and every block runs at its own speed, so that one which does not
// wait for the others is soon ahead of them. Threads of a warp meet in warp operations, threads of a block in
// __syncthreads; whatever reads what another thread has not written yet reads poison.
#pragma once
#include <ucontext.h>

#include <math.h>
#include <string.h>

#include <vector>

using uint16 = unsigned short;
using uint32 = unsigned int;
struct uint3 { unsigned x, y, z; };
struct alignas(16) uint4 { uint32 x, y, z, w; };
struct alignas(8) float2 { float x, y; };
inline uint4 make_uint4(uint32 x, uint32 y, uint32 z, uint32 w) { return {x, y, z, w}; }
inline float2 make_float2(float x, float y) { return {x, y}; }
template <class T>
T max(T a, T b) { return a < b ? b : a; }
template <class T>
T min(T a, T b) { return b < a ? b : a; }

#define __device__
#define __global__
#define __forceinline__ inline
#define __launch_bounds__(...)
#define __restrict__

namespace host {

struct Meeting { int arrived = 0; long generation = 0; };

struct Words { uint32 word[6]; };

struct Warp {
    Meeting meeting;
    Words slots[2][32];
    long round[32] = {};
};

struct Block {
    uint3 index;
    Meeting meeting;
    std::vector<Warp> warps;
    std::vector<uint4> shared;
    int slowness = 1;  // it runs once in so many rounds
};

struct Fiber {
    ucontext_t context;
    std::vector<char> stack;
    Block* block;
    unsigned thread;
    bool done = false;
};

inline ucontext_t scheduler;
inline Fiber* current = nullptr;
inline unsigned threads = 0;
inline uint3 grid;
inline bool failed = false;
inline void (*body)(const void*);
inline const void* argument;
inline uint32 random_state = 1;

inline void yield() { swapcontext(&current->context, &scheduler); }

inline void meet(Meeting& meeting, int count) {
    const long generation = meeting.generation;
    if (++meeting.arrived == count) {
        meeting.arrived = 0;
        ++meeting.generation;
    }
    do yield();
    while (meeting.generation == generation);
}

inline Warp& warp() { return current->block->warps[current->thread / 32]; }

// Give six words to the warp; returns those of all lanes. Two sets of slots in turn: one meeting is enough.
inline const Words* exchange(const Words& mine) {
    Warp& w = warp();
    const int lane = current->thread % 32, set = w.round[lane]++ % 2;
    w.slots[set][lane] = mine;
    meet(w.meeting, 32);
    return w.slots[set];
}

inline uint32 draw(uint32 below) {  // xorshift (Marsaglia 2003)
    random_state ^= random_state << 13;
    random_state ^= random_state >> 17;
    random_state ^= random_state << 5;
    return random_state % below;
}

template <class T>
void shuffle(std::vector<T>& items) {
    for (size_t i = items.size(); i > 1; --i) {
        const size_t j = draw(uint32(i));
        T other = items[j];
        items[j] = items[i - 1];
        items[i - 1] = other;
    }
}

inline void enter() {
    body(argument);
    current->done = true;
    yield();
}

// 0: ran to the end; 1: a wait was given up; 2: nothing moved for very long.
template <class Kernel>
int launch(unsigned grid_x, unsigned grid_y, unsigned block_threads, size_t shared_bytes, unsigned seed,
           const Kernel& kernel) {
    random_state = 2654435761u * (seed + 1);
    grid = {grid_x, grid_y, 1};
    threads = block_threads;
    failed = false;
    body = [](const void* k) { (*static_cast<const Kernel*>(k))(); };
    argument = &kernel;
    std::vector<Block> blocks(grid_x * grid_y);
    std::vector<Fiber> fibers(blocks.size() * threads);
    std::vector<Fiber*> order;
    for (size_t i = 0; i < blocks.size(); ++i) {
        Block& b = blocks[i];
        b.index = {unsigned(i) % grid_x, unsigned(i) / grid_x, 0};
        b.warps.resize(threads / 32);
        b.shared.assign(shared_bytes / 16 + 1, uint4{0x7FC0DEADu, 0x7FC0DEADu, 0x7FC0DEADu, 0x7FC0DEADu});  // NaN
        for (unsigned t = 0; t < threads; ++t) {
            Fiber& f = fibers[i * threads + t];
            f.block = &b;
            f.thread = t;
            f.stack.resize(64 << 10);
            getcontext(&f.context);
            f.context.uc_stack.ss_sp = f.stack.data();
            f.context.uc_stack.ss_size = f.stack.size();
            f.context.uc_link = nullptr;
            makecontext(&f.context, enter, 0);
            order.push_back(&f);
        }
    }
    std::vector<Block*> ranks;
    for (Block& b : blocks) ranks.push_back(&b);
    shuffle(ranks);
    for (size_t i = 0; i < ranks.size(); ++i) ranks[i]->slowness = 1 + 3 * int(i);
    for (long round = 0; round < 2000000 && !failed; ++round) {
        // A new order now and then; one a round would cost more than the kernel.
        if (round % 16 == 0) shuffle(order);
        bool running = false;
        for (Fiber* f : order)
            if (!f->done) {
                running = true;
                if (round % f->block->slowness) continue;
                current = f;
                swapcontext(&scheduler, &f->context);
                if (failed) break;
            }
        if (!running) return 0;
    }
    return failed ? 1 : 2;
}

}  // namespace host

#define threadIdx (uint3{host::current->thread, 0, 0})
#define blockIdx (host::current->block->index)
#define blockDim (uint3{host::threads, 1, 1})
#define gridDim (host::grid)

inline void __syncthreads() { host::meet(host::current->block->meeting, host::threads); }
inline float __expf(float a) { return expf(a); }
inline float __fdividef(float a, float b) { return a / b; }

inline float bits_to_float(uint32 bits) { float f; memcpy(&f, &bits, 4); return f; }
inline uint32 float_to_bits(float f) { uint32 bits; memcpy(&bits, &f, 4); return bits; }

inline uint16 round_bf16(float f) {
    const uint32 bits = float_to_bits(f);
    return isnan(f) ? 0x7FFF : uint16((bits + 0x7FFF + (bits >> 16 & 1)) >> 16);
}
inline uint16 round_f16(float f) {
    if (isnan(f)) return 0x7FFF;
    const _Float16 h = _Float16(f);
    uint16 bits;
    memcpy(&bits, &h, 2);
    return bits;
}
inline float widen_f16(uint16 bits) { _Float16 h; memcpy(&h, &bits, 2); return float(h); }
inline float widen_bf16(uint16 bits) { return bits_to_float(uint32(bits) << 16); }
inline uint32 pack_bf16(float low, float high) { return round_bf16(low) | uint32(round_bf16(high)) << 16; }
inline uint32 pack_f16(float low, float high) { return round_f16(low) | uint32(round_f16(high)) << 16; }
inline uint32 round_tf32(float f) { return (float_to_bits(f) + 0x1000u) & ~0x1FFFu; }
inline uint32 round_tf32_here(float f) { return round_tf32(f); }

// The operands' layouts are those of the PTX manual, "Matrix Fragments for mma.m16n8k16" and "mma.m16n8k8".
inline void mma_16bit(float (&d)[4], const uint32 (&a)[4], uint32 b0, uint32 b1, float (*widen)(uint16)) {
    const host::Words* all = host::exchange({{a[0], a[1], a[2], a[3], b0, b1}});
    const int lane = host::current->thread % 32;
    for (int i = 0; i < 4; ++i) {
        const int row = lane / 4 + i / 2 * 8, column = lane % 4 * 2 + i % 2;
        float sum = d[i];
        for (int k = 0; k < 16; ++k) {
            const uint32 left = all[row % 8 * 4 + k % 8 / 2].word[row / 8 + k / 8 * 2];
            const uint32 right = all[column * 4 + k % 8 / 2].word[4 + k / 8];
            sum += widen(uint16(left >> k % 2 * 16)) * widen(uint16(right >> k % 2 * 16));
        }
        d[i] = sum;
    }
}
inline void mma_bf16(float (&d)[4], const uint32 (&a)[4], uint32 b0, uint32 b1) { mma_16bit(d, a, b0, b1, widen_bf16); }
inline void mma_f16(float (&d)[4], const uint32 (&a)[4], uint32 b0, uint32 b1) { mma_16bit(d, a, b0, b1, widen_f16); }

inline void mma_tf32(float (&d)[4], const uint32 (&a)[4], uint32 b0, uint32 b1) {
    const host::Words* all = host::exchange({{a[0], a[1], a[2], a[3], b0, b1}});
    const int lane = host::current->thread % 32;
    const auto tf32 = [](uint32 bits) { return bits_to_float(bits & ~0x1FFFu); };
    for (int i = 0; i < 4; ++i) {
        const int row = lane / 4 + i / 2 * 8, column = lane % 4 * 2 + i % 2;
        float sum = d[i];
        for (int k = 0; k < 8; ++k)
            sum += tf32(all[row % 8 * 4 + k % 4].word[row / 8 + k / 4 * 2]) * tf32(all[column * 4 + k % 4].word[4 + k / 4]);
        d[i] = sum;
    }
}

inline bool any_in_warp(bool predicate) {
    const host::Words* all = host::exchange({{predicate, 0, 0, 0, 0, 0}});
    for (int lane = 0; lane < 32; ++lane)
        if (all[lane].word[0]) return true;
    return false;
}

inline uint4 load_shared_between_blocks(const void* address) { uint4 v; memcpy(&v, address, 16); return v; }
inline void store_shared_between_blocks(void* address, uint32 word) { memcpy(address, &word, 4); }
inline void store_shared_between_blocks(void* address, uint32 first, uint32 second) {
    const uint32 words[2] = {first, second};
    memcpy(address, words, 8);
}
inline void add_release(uint32* counter, uint32 value) { *counter += value; }
inline uint32 load_acquire(const uint32* counter) { host::yield(); return *counter; }
inline void give_up() { host::failed = true; host::yield(); }
