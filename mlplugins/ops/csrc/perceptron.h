// SPDX-License-Identifier: BSD-3-Clause
#ifndef MLPLUGINS_PERCEPTRON_H
#define MLPLUGINS_PERCEPTRON_H

// A perceptron without biases, silu between its layers, on blocks of rows; compiled once per instruction set.

#include "convolution_kernel.h"
#include "vectors.h"

namespace mlplugins {
namespace {

/// Register tile of the matrix product: `ROWS` rows by one panel of two vectors.
constexpr int ROWS = MLPLUGINS_VECTOR_BYTES == 64 ? 12 : 6;
template <typename T> constexpr int PANEL = 2 * Lanes<T>::count;

template <typename T> inline int64_t padded(int64_t columns) { return (columns + PANEL<T> - 1) / PANEL<T> * PANEL<T>; }
inline int64_t padded_rows(int64_t rows) { return (rows + ROWS - 1) / ROWS * ROWS; }

/// b (rows k, columns n), or its transpose, as panels [n / PANEL][k][PANEL], filled up with zeros.
template <typename T> void pack(const T *b, int64_t k, int64_t n, bool transposed, T *to)
{
  for (int64_t panel = 0; panel < n; panel += PANEL<T>)
    for (int64_t row = 0; row < k; row++)
      for (int64_t column = panel; column < panel + PANEL<T>; column++)
        *to++ = column >= n ? T(0) : transposed ? b[column * k + row] : b[row * n + column];
}

/// c = a b for packed b; `rows` is a multiple of ROWS, c has padded columns.
template <typename T>
void multiply(const T *a, int64_t a_stride, const T *b, T *c, int64_t c_stride, int64_t rows, int64_t k, int64_t n)
{
  constexpr int V = Lanes<T>::count;
  for (int64_t panel = 0; panel < n; panel += PANEL<T>, b += k * PANEL<T>)
    for (int64_t row = 0; row < rows; row += ROWS) {
      Vector<T> sum[ROWS][2];
#pragma GCC unroll 12
      for (int r = 0; r < ROWS; r++) sum[r][0] = sum[r][1] = Vector<T>{};
      const T *at = a + row * a_stride;
      for (int64_t q = 0; q < k; q++) {
        const Vector<T> b0 = load(b + q * PANEL<T>), b1 = load(b + q * PANEL<T> + V);
#pragma GCC unroll 12
        for (int r = 0; r < ROWS; r++) {
          const T value = at[r * a_stride + q];
          sum[r][0] += value * b0;
          sum[r][1] += value * b1;
        }
      }
      T *to = c + row * c_stride + panel;
#pragma GCC unroll 12
      for (int r = 0; r < ROWS; r++) {
        store(to + r * c_stride, sum[r][0]);
        store(to + r * c_stride + V, sum[r][1]);
      }
    }
}

/// The perceptron on one block of rows at a time, with its scratch.
template <typename T> class BlockPerceptron {
 public:
  BlockPerceptron(const Perceptron<T> &p, int64_t block, bool pulls) : p(p)
  {
    int64_t size = 0;
    for (int l = 0; l <= p.n_layers; l++) size += padded<T>(p.widths[l]);
    memory = new T[(pulls ? 3 : 1) * size * block]();
    T *next = memory;
    for (int l = 0; l <= p.n_layers; l++) {
      const int64_t area = padded<T>(p.widths[l]) * block;
      value[l] = next;
      next += area;
      if (!pulls) continue;
      slope[l] = next, gradient[l] = next + area;
      next += 2 * area;
    }
  }
  ~BlockPerceptron() { delete[] memory; }
  BlockPerceptron(const BlockPerceptron &) = delete;
  BlockPerceptron &operator=(const BlockPerceptron &) = delete;

  int64_t stride() const { return padded<T>(p.widths[p.n_layers]); }
  T *output_gradient() { return gradient[p.n_layers]; }

  /// Outputs of `n` rows of x; with `slopes`, what `pull` needs is kept.
  const T *forward(const T *x, int64_t n, bool slopes)
  {
    const int64_t first = padded<T>(p.widths[0]);
    for (int64_t row = 0; row < n; row++)
      for (int64_t k = 0; k < p.widths[0]; k++) value[0][row * first + k] = x[row * p.widths[0] + k];
    for (int l = 0; l < p.n_layers; l++) {
      multiply(value[l], padded<T>(p.widths[l]), p.forward[l], value[l + 1], padded<T>(p.widths[l + 1]),
               padded_rows(n), p.widths[l], p.widths[l + 1]);
      if (l + 1 < p.n_layers) activate(l + 1, n, slopes);
    }
    return value[p.n_layers];
  }

  /// From the gradient in output_gradient() to that of x.
  void pull(T *gx, int64_t n)
  {
    for (int l = p.n_layers - 1; l >= 0; l--) {
      const int64_t width = padded<T>(p.widths[l]);
      multiply(gradient[l + 1], padded<T>(p.widths[l + 1]), p.backward[l], gradient[l], width, padded_rows(n),
               p.widths[l + 1], p.widths[l]);
      if (l > 0)
        for (int64_t k = 0; k < width * n; k += Lanes<T>::count)
          store(gradient[l] + k, Vector<T>(load(gradient[l] + k) * load(slope[l] + k)));
    }
    const int64_t first = padded<T>(p.widths[0]);
    for (int64_t row = 0; row < n; row++)
      for (int64_t k = 0; k < p.widths[0]; k++) gx[row * p.widths[0] + k] = gradient[0][row * first + k];
  }

 private:
  const Perceptron<T> &p;
  T *memory, *value[MAX_LAYERS + 1], *slope[MAX_LAYERS + 1], *gradient[MAX_LAYERS + 1];

  /// silu(z) = z s(z), silu'(z) = s + z s (1 − s)
  void activate(int layer, int64_t n, bool slopes)
  {
    T *z = value[layer];
    for (int64_t k = 0; k < padded<T>(p.widths[layer]) * n; k += Lanes<T>::count) {
      const Vector<T> zk = load(z + k);
      const Vector<T> s = T(1) / (T(1) + exponential<T>(-zk));
      const Vector<T> y = zk * s;
      store(z + k, y);
      if (slopes) store(slope[layer] + k, Vector<T>(s + y * (T(1) - s)));
    }
  }
};

}    // namespace
}    // namespace mlplugins

#endif
