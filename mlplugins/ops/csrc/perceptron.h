// SPDX-License-Identifier: BSD-3-Clause
#ifndef MLPLUGINS_PERCEPTRON_H
#define MLPLUGINS_PERCEPTRON_H

// A perceptron without biases, silu between its layers, on blocks of rows; compiled once per instruction set.

#include "matrix.h"

namespace mlplugins {
namespace {

/// The perceptron on one block of rows at a time, with its scratch.
template <typename T> class BlockPerceptron {
 public:
  BlockPerceptron(const Perceptron<T> &p, int64_t block, bool slopes) : p(p), slopes(slopes)
  {
    int64_t size = 0;
    for (int l = 0; l <= p.n_layers; l++) size += padded<T>(p.widths[l]);
    memory = new T[(slopes ? 2 : 1) * size * block]();
    T *next = memory;
    for (int l = 0; l <= p.n_layers; l++) {
      value[l] = next, slope[l] = next + size * block;
      next += padded<T>(p.widths[l]) * block;
    }
  }
  ~BlockPerceptron() { delete[] memory; }
  BlockPerceptron(const BlockPerceptron &) = delete;
  BlockPerceptron &operator=(const BlockPerceptron &) = delete;

  int64_t stride() const { return padded<T>(p.widths[p.n_layers]); }
  const T *outputs() const { return value[p.n_layers]; }
  const T *output_slopes() const { return slope[p.n_layers]; }

  /// Outputs, and slopes if asked for, of rows x[row(0)], …, x[row(n − 1)].
  template <typename Row> void forward(const T *x, const T *dx, const Row &row, int64_t n)
  {
    copy(x, value[0], row, n);
    if (slopes) copy(dx, slope[0], row, n);
    for (int l = 0; l < p.n_layers; l++) {
      multiply_layer(value, l, n);
      if (slopes) multiply_layer(slope, l, n);
      if (l + 1 < p.n_layers) activate(l + 1, n);
    }
  }

 private:
  const Perceptron<T> &p;
  const bool slopes;    // along with every value its derivative with respect to the distance
  T *memory, *value[MAX_LAYERS + 1], *slope[MAX_LAYERS + 1];

  template <typename Row> void copy(const T *from, T *to, const Row &row, int64_t n) const
  {
    for (int64_t k = 0; k < n; k++)
      for (int64_t b = 0; b < p.widths[0]; b++) to[k * padded<T>(p.widths[0]) + b] = from[row(k) * p.widths[0] + b];
  }

  void multiply_layer(T *const *rows, int l, int64_t n) const
  {
    multiply(rows[l], padded<T>(p.widths[l]), p.matrices[l], rows[l + 1], padded<T>(p.widths[l + 1]), padded_rows(n),
             p.widths[l], p.widths[l + 1]);
  }

  /// silu(z) = z s(z), silu'(z) = s + z s (1 − s)
  void activate(int layer, int64_t n)
  {
    T *z = value[layer], *dz = slope[layer];
    for (int64_t k = 0; k < padded<T>(p.widths[layer]) * n; k += Lanes<T>::count) {
      const Vector<T> zk = load(z + k);
      const Vector<T> s = T(1) / (T(1) + exponential<T>(-zk));
      const Vector<T> y = zk * s;
      store(z + k, y);
      if (slopes) store(dz + k, Vector<T>((s + y * (T(1) - s)) * load(dz + k)));
    }
  }
};

}    // namespace
}    // namespace mlplugins

#endif
