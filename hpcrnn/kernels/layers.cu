// What stands around the recurrent layers: rounding, the losses, the optimizers. PRECISION as in precision.cuh.
#include "precision.cuh"

// to (n) = scale * from (n), rounded to what is stored.
extern "C" __global__ void round_all(const float* from, Stored* to, float scale, long long n) {
    for (long long i = blockIdx.x * (long long)blockDim.x + threadIdx.x; i < n; i += (long long)gridDim.x * blockDim.x)
        to[i] = narrow(scale * from[i]);
}

// to (n) = from (n), widened.
extern "C" __global__ void widen_all(const Stored* from, float* to, long long n) {
    for (long long i = blockIdx.x * (long long)blockDim.x + threadIdx.x; i < n; i += (long long)gridDim.x * blockDim.x)
        to[i] = widen(from[i]);
}

// to (rows, columns) = x (rows, columns) + b (columns), for the rows of a linear layer in float32.
extern "C" __global__ void add_bias(const float* x, const float* b, Stored* to, long long n, int columns) {
    for (long long i = blockIdx.x * (long long)blockDim.x + threadIdx.x; i < n; i += (long long)gridDim.x * blockDim.x)
        to[i] = narrow(x[i] + b[i % columns]);
}

// Softmax cross-entropy of one row a block: scores (rows, columns) without bias become nothing, gradient (rows,
// columns) = scale weight (softmax - target), terms (rows) = weight * -log softmax[target].
extern "C" __global__ void __launch_bounds__(128)
    cross_entropy(const float* scores, const float* b, const int* targets, const float* weights, Stored* gradient,
                  double* terms, float scale, int columns) {
    __shared__ float shared[128];
    const long long row = blockIdx.x;
    const int me = threadIdx.x;
    const float* mine = scores + row * columns;
    auto reduce = [&](float value, bool largest) {
        shared[me] = value;
        __syncthreads();
        for (int half = 64; half > 0; half /= 2) {
            if (me < half)
                shared[me] = largest ? fmaxf(shared[me], shared[me + half]) : shared[me] + shared[me + half];
            __syncthreads();
        }
        const float result = shared[0];
        __syncthreads();
        return result;
    };
    float most = bits_to_float(0xFF800000u);  // minus infinity
    for (int i = me; i < columns; i += 128) most = fmaxf(most, mine[i] + b[i]);
    most = reduce(most, true);
    float sum = 0.0f;
    for (int i = me; i < columns; i += 128) sum += expf(mine[i] + b[i] - most);
    sum = reduce(sum, false);
    const float weight = weights ? weights[row] : 1.0f;
    const int target = targets[row];
    for (int i = me; i < columns; i += 128) {
        const float p = expf(mine[i] + b[i] - most) / sum;
        gradient[row * columns + i] = narrow(scale * weight * (p - (i == target ? 1.0f : 0.0f)));
    }
    if (me == 0) terms[row] = double(weight) * (log(double(sum)) - double(mine[target] + b[target] - most));
}

// Squared error of one element a thread: gradient = scale weight 2 (y - target) / columns, terms = weight (y -
// target)² / columns.
extern "C" __global__ void squared_error(const float* scores, const float* b, const float* targets,
                                         const float* weights, Stored* gradient, double* terms, float scale,
                                         long long n, int columns) {
    for (long long i = blockIdx.x * (long long)blockDim.x + threadIdx.x; i < n;
         i += (long long)gridDim.x * blockDim.x) {
        const float weight = weights ? weights[i / columns] : 1.0f;
        const float off = scores[i] + b[i % columns] - targets[i];
        gradient[i] = narrow(scale * weight * 2.0f * off / columns);
        terms[i] = double(weight) * double(off) * double(off) / columns;
    }
}

// terms (n) = y gradient, the loss of a given cotangent.
extern "C" __global__ void inner_product(const Stored* y, const float* cotangent, double* terms, long long n) {
    for (long long i = blockIdx.x * (long long)blockDim.x + threadIdx.x; i < n; i += (long long)gridDim.x * blockDim.x)
        terms[i] = double(widen(y[i])) * double(cotangent[i]);
}

// v = momentum v + g, p -= lr v.
extern "C" __global__ void sgd(float* p, const float* g, float* v, float lr, float momentum, long long n) {
    for (long long i = blockIdx.x * (long long)blockDim.x + threadIdx.x; i < n;
         i += (long long)gridDim.x * blockDim.x) {
        v[i] = momentum * v[i] + g[i];
        p[i] -= lr * v[i];
    }
}

// Adam with bias correction: `rate` and `eps` hold the corrections (see hpcrnn/model/optimizers.py).
extern "C" __global__ void adam(float* p, const float* g, float* m, float* v, float rate, float eps, float beta1,
                                float beta2, long long n) {
    for (long long i = blockIdx.x * (long long)blockDim.x + threadIdx.x; i < n;
         i += (long long)gridDim.x * blockDim.x) {
        m[i] = beta1 * m[i] + (1.0f - beta1) * g[i];
        v[i] = beta2 * v[i] + (1.0f - beta2) * g[i] * g[i];
        p[i] -= rate * m[i] / (sqrtf(v[i]) + eps);
    }
}
