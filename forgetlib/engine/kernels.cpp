// Element-wise work of a transformer on the CPU in bf16, one pass over memory each.
//
// PyTorch runs such a chain operation by operation: each reads and writes whole tensors, rounds to
// bf16 in between, and its tanh takes 1.5 ns a number. Here a chain is one loop in fp32, rounded
// once. forgetlib/kernels.py says what each function computes and what that saves.
//
// Tensors are dense, rows of `width` numbers; every loop gives a thread a fixed range of rows, so
// that the same number of threads gives the same bits.

#include <cmath>
#include <cstdint>
#include <cstring>
#include <vector>
#include <omp.h>

typedef uint16_t bf16;

static inline float wide(bf16 x) {
  uint32_t bits = (uint32_t)x << 16;
  float f;
  memcpy(&f, &bits, 4);
  return f;
}

static inline bf16 narrow(float f) {  // to the nearest, ties to even; NaN and infinity stay
  if (f != f) return 0x7fc0;
  uint32_t bits;
  memcpy(&bits, &f, 4);
  return (bits + 0x7fff + ((bits >> 16) & 1)) >> 16;
}

static inline float wide(float x) { return x; }
static inline void rounded(float x, float& y) { y = x; }
static inline void rounded(float x, bf16& y) { y = narrow(x); }

// exp(x) = 2^n 2^f with |f| <= 1/2 and a polynomial for 2^f: relative error below 4e-6, which is
// far below bf16's 4e-3. Without a branch or a call, so that the compiler vectorises it.
static inline float exponential(float x) {
  float y = x * 1.44269504f;
  y = y > 126.f ? 126.f : y;
  y = y < -126.f ? -126.f : y;
  float n = std::nearbyintf(y), f = y - n;
  float p = 1.f + f * (0.693147180f + f * (0.240226507f + f * (0.0555041087f +
            f * (0.00961812911f + f * (0.00133335581f + f * 0.000154035304f)))));
  int32_t bits = ((int32_t)n + 127) << 23;
  float scale;
  memcpy(&scale, &bits, 4);
  return p * scale;
}

typedef bf16 Eight __attribute__((vector_size(16)));
#if defined(__clang__) || __GNUC__ >= 12
#define MIXED(a, b, ...) __builtin_shufflevector(a, b, __VA_ARGS__)
#else
#define MIXED(a, b, ...) __builtin_shuffle(a, b, (Eight){__VA_ARGS__})
#endif
static inline Eight low_halves(Eight a, Eight b) { return MIXED(a, b, 0, 8, 1, 9, 2, 10, 3, 11); }
static inline Eight high_halves(Eight a, Eight b) {
  return MIXED(a, b, 4, 12, 5, 13, 6, 14, 7, 15);
}

// SiLU is x sigmoid(x); GELU's tanh form is x sigmoid(2 sqrt(2 / pi) (x + 0.044715 x^3)).
struct Gate {
  float value, slope;
};
static inline Gate gate(float x, int gelu) {
  const float a = 1.59576912f, b = 0.044715f;
  float z = gelu ? a * (x + b * x * x * x) : x;
  float dz = gelu ? a * (1.f + 3.f * b * x * x) : 1.f;
  float s = 1.f / (1.f + exponential(-z));
  return {x * s, s + x * s * (1.f - s) * dz};
}

// One chunk of the vocabulary of a softmax over all of it (likelihood._Chunked): logits become
// exp(logit - peak), where the running peak and norm of each row take the chunk in, and shrink is
// what a sum over the chunks before has to be multiplied by.
template <typename Number>
static void softmax_chunk_of(Number* logits, float* peak, float* norm, float* shrink, int64_t rows,
                             int64_t width) {
#pragma omp parallel for schedule(static)
  for (int64_t r = 0; r < rows; r++) {
    Number* row = logits + r * width;
    float highest = peak[r], sum = 0;
#pragma omp simd reduction(max : highest)
    for (int64_t i = 0; i < width; i++) {
      float logit = wide(row[i]);
      highest = logit > highest ? logit : highest;
    }
#pragma omp simd reduction(+ : sum)
    for (int64_t i = 0; i < width; i++) {
      float p = exponential(wide(row[i]) - highest);
      sum += p;
      rounded(p, row[i]);
    }
    shrink[r] = std::exp(peak[r] - highest);
    norm[r] = norm[r] * shrink[r] + sum;
    peak[r] = highest;
  }
}

// A range of the numbers of one of several tensors, of which small ones keep all threads busy too.
struct Block {
  int64_t tensor, from, to;
};
static std::vector<Block> blocks_of(const int64_t* sizes, int64_t count, int64_t most) {
  std::vector<Block> blocks;
  for (int64_t t = 0; t < count; t++)
    for (int64_t from = 0; from < sizes[t]; from += most)
      blocks.push_back({t, from, from + most < sizes[t] ? from + most : sizes[t]});
  return blocks;
}

extern "C" {

void rms_norm(const bf16* x, const bf16* weight, float offset, float eps, bf16* y, float* scale,
              int64_t rows, int64_t width) {
#pragma omp parallel for schedule(static)
  for (int64_t r = 0; r < rows; r++) {
    const bf16* row = x + r * width;
    float squares = 0;
#pragma omp simd reduction(+ : squares)
    for (int64_t i = 0; i < width; i++) squares += wide(row[i]) * wide(row[i]);
    float s = scale[r] = 1.f / std::sqrt(squares / width + eps);
#pragma omp simd
    for (int64_t i = 0; i < width; i++)
      y[r * width + i] = narrow(wide(row[i]) * s * (wide(weight[i]) + offset));
  }
}

void rms_norm_backward(const bf16* gradient, const bf16* x, const bf16* weight, float offset,
                       const float* scale, bf16* dx, bf16* dweight, int64_t rows, int64_t width) {
  int threads = omp_get_max_threads();
  std::vector<float> sums(threads * width, 0.f);
#pragma omp parallel num_threads(threads)
  {
    float* sum = sums.data() + omp_get_thread_num() * width;
#pragma omp for schedule(static)
    for (int64_t r = 0; r < rows; r++) {
      const bf16 *row = x + r * width, *g = gradient + r * width;
      float s = scale[r], dot = 0;
#pragma omp simd reduction(+ : dot)
      for (int64_t i = 0; i < width; i++) {
        float normed = wide(row[i]) * s;
        dot += wide(g[i]) * (wide(weight[i]) + offset) * normed;
        sum[i] += wide(g[i]) * normed;
      }
      dot /= width;
#pragma omp simd
      for (int64_t i = 0; i < width; i++)
        dx[r * width + i] =
            narrow(s * (wide(g[i]) * (wide(weight[i]) + offset) - wide(row[i]) * s * dot));
    }
  }
  for (int64_t i = 0; i < width; i++) {
    float total = 0;
    for (int t = 0; t < threads; t++) total += sums[t * width + i];
    dweight[i] = narrow(total);
  }
}

void gated(const bf16* gates, const bf16* up, bf16* y, int gelu, int64_t n) {
#pragma omp parallel for simd schedule(static)
  for (int64_t i = 0; i < n; i++) y[i] = narrow(gate(wide(gates[i]), gelu).value * wide(up[i]));
}

void gated_backward(const bf16* gradient, const bf16* gates, const bf16* up, bf16* dgates,
                    bf16* dup, int gelu, int64_t n) {
#pragma omp parallel for simd schedule(static)
  for (int64_t i = 0; i < n; i++) {
    Gate a = gate(wide(gates[i]), gelu);
    float g = wide(gradient[i]);
    dgates[i] = narrow(g * wide(up[i]) * a.slope);
    dup[i] = narrow(g * a.value);
  }
}

// x, y: (positions, heads, width); cosine, sine: (positions, width). direction -1 is the transpose.
void rotate(const bf16* x, const bf16* cosine, const bf16* sine, bf16* y, int direction,
            int64_t positions, int64_t heads, int64_t width) {
  int64_t half = width / 2;
#pragma omp parallel for schedule(static)
  for (int64_t p = 0; p < positions; p++) {
    const bf16 *c = cosine + p * width, *s = sine + p * width;
    for (int64_t h = 0; h < heads; h++) {
      const bf16* a = x + (p * heads + h) * width;
      bf16* out = y + (p * heads + h) * width;
#pragma omp simd
      for (int64_t i = 0; i < half; i++) {
        float first = wide(a[i]), second = wide(a[i + half]);
        float s1 = wide(s[i]), s2 = wide(s[i + half]);
        float to_first = direction > 0 ? -s1 : s2, to_second = direction > 0 ? s2 : -s1;
        out[i] = narrow(first * wide(c[i]) + second * to_first);
        out[i + half] = narrow(second * wide(c[i + half]) + first * to_second);
      }
    }
  }
}

void softmax_chunk(bf16* logits, float* peak, float* norm, float* shrink, int64_t rows,
                   int64_t width) {
  softmax_chunk_of(logits, peak, norm, shrink, rows, width);
}

void softmax_chunk_wide(float* logits, float* peak, float* norm, float* shrink, int64_t rows,
                        int64_t width) {
  softmax_chunk_of(logits, peak, norm, shrink, rows, width);
}

// y (columns, rows) is the transpose of x (rows, columns). Blocks of 8 x 8 are transposed in
// registers: three rounds of interleaving each row with the one four below it. Two blocks side by
// side use more of each cache line; more of them meet in the same places of the cache.
void transpose(const bf16* x, bf16* y, int64_t rows, int64_t columns) {
  const int64_t whole_rows = rows / 8 * 8, whole_columns = columns / 8 * 8;
#pragma omp parallel
  {
#pragma omp for schedule(static)
    for (int64_t from = 0; from < whole_columns; from += 16)
      for (int64_t r = 0; r < whole_rows; r += 8)
        for (int64_t c = from; c < from + 16 && c < whole_columns; c += 8) {
          Eight a[8], b[8];
          for (int i = 0; i < 8; i++) memcpy(&a[i], x + (r + i) * columns + c, 16);
          for (int round = 0; round < 3; round++) {
            for (int i = 0; i < 4; i++) {
              b[2 * i] = low_halves(a[i], a[i + 4]);
              b[2 * i + 1] = high_halves(a[i], a[i + 4]);
            }
            memcpy(a, b, sizeof a);
          }
          for (int i = 0; i < 8; i++) memcpy(y + (c + i) * rows + r, &a[i], 16);
        }
#pragma omp for schedule(static)
    for (int64_t c = 0; c < columns; c++)
      for (int64_t r = c < whole_columns ? whole_rows : 0; r < rows; r++)
        y[c * rows + r] = x[r * columns + c];
  }
}

// Attention scores become probabilities: softmax of scale x score + mask over the columns up to a
// row's own place, 0 beyond. Every place of a sequence of `width` has `heads` rows one after
// another; mask, (width, width), may be null.
void attention_softmax(bf16* scores, const bf16* mask, float scale, int64_t heads, int64_t rows,
                       int64_t width) {
#pragma omp parallel for schedule(static)
  for (int64_t r = 0; r < rows; r++) {
    int64_t place = r / heads % width, n = place + 1;
    bf16* row = scores + r * width;
    const bf16* added = mask ? mask + place * width : nullptr;
    float highest = -INFINITY, sum = 0;
    if (added)
#pragma omp simd
      for (int64_t i = 0; i < n; i++) row[i] = narrow(wide(row[i]) + wide(added[i]) / scale);
#pragma omp simd reduction(max : highest)
    for (int64_t i = 0; i < n; i++) {
      float score = wide(row[i]);
      highest = score > highest ? score : highest;
    }
#pragma omp simd reduction(+ : sum)
    for (int64_t i = 0; i < n; i++) sum += exponential(scale * (wide(row[i]) - highest));
#pragma omp simd
    for (int64_t i = 0; i < n; i++)
      row[i] = narrow(exponential(scale * (wide(row[i]) - highest)) / sum);
    for (int64_t i = n; i < width; i++) row[i] = 0;
  }
}

// The gradient of probabilities becomes that of the products of queries and keys.
void attention_softmax_backward(const bf16* probabilities, bf16* gradient, float scale,
                                int64_t rows, int64_t width) {
#pragma omp parallel for schedule(static)
  for (int64_t r = 0; r < rows; r++) {
    const bf16* p = probabilities + r * width;
    bf16* g = gradient + r * width;
    float dot = 0;
#pragma omp simd reduction(+ : dot)
    for (int64_t i = 0; i < width; i++) dot += wide(p[i]) * wide(g[i]);
#pragma omp simd
    for (int64_t i = 0; i < width; i++) g[i] = narrow(scale * wide(p[i]) * (wide(g[i]) - dot));
  }
}

// Of several tensors together. Blocks are summed in their order, whatever the number of threads.
double sum_of_squares(const bf16* const* tensors, const int64_t* sizes, int64_t count) {
  const std::vector<Block> blocks = blocks_of(sizes, count, 4096);
  std::vector<double> parts(blocks.size());
#pragma omp parallel for schedule(static)
  for (size_t b = 0; b < blocks.size(); b++) {
    const bf16* x = tensors[blocks[b].tensor];
    float part = 0;
#pragma omp simd reduction(+ : part)
    for (int64_t i = blocks[b].from; i < blocks[b].to; i++) part += wide(x[i]) * wide(x[i]);
    parts[b] = part;
  }
  double total = 0;
  for (double part : parts) total += part;
  return total;
}

// AdamW on the fp32 masters of several tensors, and the bf16 weights that they are rounded to.
void adamw(const bf16* const* gradients, float* const* masters, float* const* means,
           float* const* squares, bf16* const* weights, const int64_t* sizes, int64_t count,
           float clip, float rate, float beta1, float beta2, float eps, float decay, int64_t step) {
  float correction1 = 1 - std::pow((double)beta1, (double)step);
  float correction2 = std::sqrt(1 - std::pow((double)beta2, (double)step));
  const std::vector<Block> blocks = blocks_of(sizes, count, 1 << 16);
#pragma omp parallel for schedule(static)
  for (size_t b = 0; b < blocks.size(); b++) {
    int64_t tensor = blocks[b].tensor;
    const bf16* gradient = gradients[tensor];
    float *master = masters[tensor], *mean = means[tensor], *square = squares[tensor];
    bf16* weight = weights[tensor];
#pragma omp simd
    for (int64_t i = blocks[b].from; i < blocks[b].to; i++) {
      float g = wide(gradient[i]) * clip;
      float m = mean[i] = beta1 * mean[i] + (1 - beta1) * g;
      float v = square[i] = beta2 * square[i] + (1 - beta2) * g * g;
      float w = master[i] * (1 - rate * decay);
      w -= rate / correction1 * m / (std::sqrt(v) / correction2 + eps);
      master[i] = w;
      weight[i] = narrow(w);
    }
  }
}

}  // extern "C"
