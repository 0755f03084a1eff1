// Stands in for ptx.cuh where CUDA C is compiled as C++: every CUDA thread is a fiber as soon as it waits for another,
// switched only where threads wait, in an order drawn at random. Threads of a warp meet in warp operations, threads of
// a block in __syncthreads; whatever reads what another thread has not written yet reads poison. Threads that wait for
// nobody run one after another in one fiber, which costs no more than a loop.
//
// The blocks of a cooperative launch are all there at once, each at its own speed, so that one which does not wait for
// the others is soon ahead of them. Of any other launch they run one by one: no block may count on another.
#pragma once
#include <setjmp.h>
#include <ucontext.h>

#include <math.h>
#include <string.h>

#include <type_traits>
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

struct Fiber {
    jmp_buf where;
    bool begun = false;
    char* stack = nullptr;
};

struct Thread {
    struct Block* block;
    unsigned index;
    Fiber* fiber = nullptr;            // while it waits
    const Meeting* meeting = nullptr;  // for others to come here, after so many meetings
    long generation = 0;
    long asleep_until = 0;             // this round
    bool done = false;
};

struct Block {
    uint3 index;
    Meeting meeting;
    std::vector<Warp> warps;
    std::vector<uint4> shared;                  // of the size that the launch gives
    std::vector<std::vector<uint4>> declared;   // of sizes that the source gives, by number
    std::vector<Thread> threads;
    std::vector<Thread*> order;
    size_t begun = 0, unfinished = 0;
    int slowness = 1;  // it runs once in so many rounds
};

// How a kernel is launched; the layout is known to build.py.
struct Launch {
    unsigned grid[3], threads;
    unsigned long shared_bytes;
    unsigned seed, cooperative;
};

inline constexpr size_t STACK_BYTES = 64 << 10;
inline constexpr int PATIENCE = 20000;  // rounds without a move, of a block that runs in each
inline constexpr int NAP = 8;           // rounds until it is worth while to look again

inline jmp_buf scheduler;
inline Thread* current = nullptr;
inline Fiber* running = nullptr;
inline std::vector<Fiber*> idle;  // kept from launch to launch
inline unsigned threads = 0;
inline uint3 grid;
inline bool failed = false, at_once = false;
inline long moves = 0;  // what shows that not everybody waits for good
inline void (*body)(const void*);
inline const void* argument;
inline long round = 0;
inline uint32 random_state = 1;

// Fibers are switched by jumps: swapcontext would ask the kernel for the signal mask, ten times as slow.
__attribute__((noinline)) inline void yield() {
    if (!_setjmp(running->where)) _longjmp(scheduler, 1);
}

// Let the others run for a while; to be called in a loop.
inline void pause(int rounds) {
    current->fiber = running;
    current->asleep_until = round + rounds * current->block->slowness;
    yield();
}

inline void meet(Meeting& meeting, int count) {
    const long generation = meeting.generation;
    if (++meeting.arrived == count) {
        meeting.arrived = 0;
        ++meeting.generation;
        moves += !at_once;  // a block that polls others meets itself all the time
    }
    current->fiber = running;
    current->meeting = &meeting;
    current->generation = generation;
    yield();
}

inline int lane() { return current->index % 32; }
inline Warp& warp() { return current->block->warps[current->index / 32]; }
inline int lanes() { return min(32, int(threads - current->index / 32 * 32)); }

// Give six words to the warp; returns those of all lanes. Two sets of slots in turn: one meeting is enough.
inline const Words* exchange(const Words& mine) {
    Warp& w = warp();
    const int set = w.round[lane()]++ % 2;
    w.slots[set][lane()] = mine;
    meet(w.meeting, lanes());
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

// What every fiber runs: the thread it was given, then those of its block that have not begun yet.
inline void live() {
    for (;;) {
        body(argument);
        Block& block = *current->block;
        current->done = true;
        current->fiber = nullptr;
        ++moves;
        --block.unfinished;
        if (block.begun < block.order.size()) {
            current = block.order[block.begun++];
            continue;
        }
        idle.push_back(running);
        yield();
    }
}

__attribute__((noinline)) inline void resume(Thread* thread) {
    static ucontext_t birth;
    if (!thread->fiber) {
        if (idle.empty()) idle.push_back(new Fiber);
        thread->fiber = idle.back();
        idle.pop_back();
    }
    current = thread;
    running = thread->fiber;
    if (_setjmp(scheduler)) return;
    if (running->begun) _longjmp(running->where, 1);
    running->begun = true;
    if (!running->stack) running->stack = new char[STACK_BYTES];
    getcontext(&birth);
    birth.uc_stack.ss_sp = running->stack;
    birth.uc_stack.ss_size = STACK_BYTES;
    birth.uc_link = nullptr;
    makecontext(&birth, live, 0);
    setcontext(&birth);
}

inline bool is_ready(const Thread& t) {
    if (t.done || !t.fiber || t.asleep_until > round) return false;
    return !t.meeting || t.meeting->generation != t.generation;
}

// Let every thread of a block go on as far as it can.
inline void run_block(Block& block) {
    // A new order now and then; one a round would cost more than the kernel.
    if (round % 16 == 0) shuffle(block.order);
    while (block.begun < block.order.size() && !failed) resume(block.order[block.begun++]);
    for (Thread* t : block.order)
        if (is_ready(*t) && !failed) {
            t->meeting = nullptr;
            resume(t);
        }
}

// Run blocks to their end. 0: they are done; 1: a wait was given up; 2: nothing moves any more.
inline int finish(std::vector<Block*>& blocks, long patience) {
    long quiet = 0;
    size_t left = blocks.size();
    for (round = 0; left; ++round) {
        if (round % 16 == 0) shuffle(blocks);
        const long before = moves;
        for (Block* block : blocks)
            if (block->unfinished && round % block->slowness == 0) {
                run_block(*block);
                left -= !block->unfinished;
                if (failed) return 1;
            }
        quiet = moves == before ? quiet + 1 : 0;
        if (quiet > patience) return 2;
    }
    return 0;
}

inline void fill_with_poison(std::vector<uint4>& memory, size_t bytes) {
    memory.assign(bytes / 16 + 1, uint4{0x7FC0DEADu, 0x7FC0DEADu, 0x7FC0DEADu, 0x7FC0DEADu});  // NaN
}

inline void prepare(Block& block, size_t i, const Launch& how) {
    block.index = {unsigned(i) % grid.x, unsigned(i / grid.x) % grid.y, unsigned(i / grid.x / grid.y)};
    fill_with_poison(block.shared, how.shared_bytes);
    block.declared.clear();
    block.warps.resize((threads + 31) / 32);
    block.threads.resize(threads);
    const bool is_new = block.order.empty();
    for (unsigned t = 0; t < threads; ++t) {
        block.threads[t] = {&block, t};
        if (is_new) block.order.push_back(&block.threads[t]);
    }
    if (is_new) shuffle(block.order);
    block.begun = 0;
    block.unfinished = threads;
}

// Fibers that are left in the middle of a kernel begin anew.
inline void give_up_fibers(Block& block) {
    for (Thread& t : block.threads)
        if (t.fiber) {
            t.fiber->begun = false;
            idle.push_back(t.fiber);
        }
}

inline int run_at_once(const Launch& how, size_t n_blocks) {
    std::vector<Block> blocks(n_blocks);
    std::vector<Block*> ranks;
    for (size_t i = 0; i < n_blocks; ++i) {
        prepare(blocks[i], i, how);
        ranks.push_back(&blocks[i]);
    }
    shuffle(ranks);
    for (size_t i = 0; i < n_blocks; ++i) ranks[i]->slowness = 1 + 3 * int(i);
    const int status = finish(ranks, PATIENCE * (1 + 3 * long(n_blocks)));
    if (status)
        for (Block& block : blocks) give_up_fibers(block);
    return status;
}

inline int run_one_by_one(const Launch& how, size_t n_blocks) {
    Block block;
    std::vector<Block*> alone{&block};
    int status = 0;
    for (size_t i = 0; i < n_blocks && !status; ++i) {
        prepare(block, i, how);
        status = finish(alone, PATIENCE);
    }
    if (status) give_up_fibers(block);
    return status;
}

// 0: ran to the end; 1: a wait was given up; 2: nothing moved for very long.
template <class Kernel>
int launch(const Launch& how, const Kernel& kernel) {
    random_state = 2654435761u * (how.seed + 1);
    if (!random_state) random_state = 1;
    grid = {how.grid[0], how.grid[1], how.grid[2]};
    threads = how.threads;
    failed = false;
    at_once = how.cooperative;
    body = [](const void* k) { (*static_cast<const Kernel*>(k))(); };
    argument = &kernel;
    const size_t n_blocks = size_t(grid.x) * grid.y * grid.z;
    return at_once ? run_at_once(how, n_blocks) : run_one_by_one(how, n_blocks);
}

// What build.py puts in the place of __shared__ declarations.
template <class T>
T* launched_shared() { return reinterpret_cast<T*>(current->block->shared.data()); }
template <class T>
T& declared_shared(int id) {
    std::vector<std::vector<uint4>>& all = current->block->declared;
    if (all.size() <= size_t(id)) all.resize(id + 1);
    std::vector<uint4>& memory = all[id];
    if (memory.empty()) fill_with_poison(memory, sizeof(T));
    return *reinterpret_cast<T*>(memory.data());
}

// What build.py tells of a kernel's parameters: what is passed or, of a pointer, what it points to.
struct Parameter { int is_pointer, size, kind; };
template <class T>
constexpr int size_of() {
    if constexpr (std::is_void_v<T>) return 0;
    else return int(sizeof(T));
}
template <class T>
constexpr Parameter parameter() {
    using Value = std::remove_cv_t<std::remove_pointer_t<T>>;
    const int kind = std::is_floating_point_v<Value> ? 'f' : !std::is_integral_v<Value> ? 0
                     : std::is_signed_v<Value>       ? 'i' : 'u';
    return {std::is_pointer_v<T>, size_of<Value>(), kind};
}
constexpr unsigned most_threads(unsigned n = 1024, unsigned = 0) { return n; }

}  // namespace host

#define threadIdx (uint3{host::current->index, 0, 0})
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
template <float (*widen)(uint16)>
void mma_16bit(float (&d)[4], const uint32 (&a)[4], uint32 b0, uint32 b1) {
    const host::Words* all = host::exchange({{a[0], a[1], a[2], a[3], b0, b1}});
    const int lane = host::lane();
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
inline void mma_bf16(float (&d)[4], const uint32 (&a)[4], uint32 b0, uint32 b1) { mma_16bit<widen_bf16>(d, a, b0, b1); }
inline void mma_f16(float (&d)[4], const uint32 (&a)[4], uint32 b0, uint32 b1) { mma_16bit<widen_f16>(d, a, b0, b1); }

inline void mma_tf32(float (&d)[4], const uint32 (&a)[4], uint32 b0, uint32 b1) {
    const host::Words* all = host::exchange({{a[0], a[1], a[2], a[3], b0, b1}});
    const int lane = host::lane();
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
    bool any = false;
    for (int lane = 0; lane < 32; ++lane) any |= all[lane].word[0];
    if (any) host::pause(host::NAP);  // what was asked for is not there yet, for a while
    return any;
}

inline uint32 or_in_warp(uint32 bits) {
    const host::Words* all = host::exchange({{bits, 0, 0, 0, 0, 0}});
    for (int lane = 0; lane < 32; ++lane) bits |= all[lane].word[0];
    return bits;
}

inline uint4 load_shared_between_blocks(const void* address) { uint4 v; memcpy(&v, address, 16); return v; }
inline void store_shared_between_blocks(void* address, uint32 word) {
    memcpy(address, &word, 4);
    ++host::moves;
}
inline void store_shared_between_blocks(void* address, uint32 first, uint32 second) {
    const uint32 words[2] = {first, second};
    memcpy(address, words, 8);
    ++host::moves;
}
inline void add_release(uint32* counter, uint32 value) {
    *counter += value;
    ++host::moves;
}
inline uint32 load_acquire(const uint32* counter) {
    host::pause(host::NAP);
    return *counter;
}
inline uint32 load_relaxed(const uint32* address) { return *address; }
inline void or_relaxed(uint32* address, uint32 bits) {
    *address |= bits;
    ++host::moves;
}
inline void give_up() {
    host::failed = true;
    host::pause(1);
}
