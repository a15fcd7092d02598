// SPDX-License-Identifier: BSD-3-Clause
// Compiled once per instruction set; MLPLUGINS_ISA names the tables at the end of the file.

#include "node_kernel.h"
#include "vectors.h"

namespace mlplugins {
namespace {

/// Register tile: up to `TILE` rows by two vectors of columns.
constexpr int TILE = MLPLUGINS_VECTOR_BYTES == 64 ? 12 : 6;
constexpr int64_t BLOCK = 8 * TILE;    // rows that are gathered, and pass through a matrix, together

/// R rows of the sum of the maps, columns [column, column + two vectors), as R rows of two vectors.
template <typename T, int R>
void sum_tile(const T *a, int64_t a_stride, const MapTarget<T> &t, int64_t species, int64_t column, T *c)
{
  constexpr int V = Lanes<T>::count;
  Vector<T> sum[R][2];
#pragma GCC unroll 12
  for (int r = 0; r < R; r++) sum[r][0] = sum[r][1] = Vector<T>{};
  for (int64_t s = 0; s < t.n_sources; s++) {
    const MapSource<T> &source = t.sources[s];
    const int64_t channels = source.channels;
    const T *b = source.matrix + species * source.species_stride + column / STRIP * STRIP * channels + column % STRIP;
    for (int64_t q = 0; q < channels; q++, b += STRIP) {
      const Vector<T> b0 = load(b), b1 = load(b + V);
#pragma GCC unroll 12
      for (int r = 0; r < R; r++) {
        const T value = a[r * a_stride + q];
        sum[r][0] += value * b0;
        sum[r][1] += value * b1;
      }
    }
    a += channels;
  }
#pragma GCC unroll 12
  for (int r = 0; r < R; r++) {
    store(c + 2 * V * r, sum[r][0]);
    store(c + 2 * V * r + V, sum[r][1]);
  }
}

template <typename T>
using Tile = void (*)(const T *, int64_t, const MapTarget<T> &, int64_t, int64_t, T *);

/// By the number of rows; more than half a tile of an instruction set is filled up to a whole one.
template <typename T> Tile<T> tile_of(int rows)
{
  if constexpr (TILE == 12) {
    static const Tile<T> tiles[] = {sum_tile<T, 1>, sum_tile<T, 2>,  sum_tile<T, 3>,  sum_tile<T, 4>,
                                    sum_tile<T, 6>, sum_tile<T, 6>,  sum_tile<T, 8>,  sum_tile<T, 8>,
                                    sum_tile<T, 12>, sum_tile<T, 12>, sum_tile<T, 12>, sum_tile<T, 12>};
    return tiles[rows - 1];
  } else {
    static const Tile<T> tiles[] = {sum_tile<T, 1>, sum_tile<T, 2>, sum_tile<T, 3>,
                                    sum_tile<T, 4>, sum_tile<T, 6>, sum_tile<T, 6>};
    return tiles[rows - 1];
  }
}

template <typename T> inline void copy(const T *from, T *to, int64_t n)
{
  constexpr int V = Lanes<T>::count;
  int64_t k = 0;
  for (; k + V <= n; k += V) store(to + k, load(from + k));
  for (; k < n; k++) to[k] = from[k];
}

template <typename T>
void map_block(const MapTarget<T> &t, const int64_t *nodes, int64_t first, int64_t rows, int64_t species, T *scratch)
{
  constexpr int P = 2 * Lanes<T>::count;
  T *const a = scratch + TILE * P;
  T *to[BLOCK];
  for (int64_t r = 0; r < rows; r++) {    // (node, component) pairs
    const int64_t node = nodes[(first + r) / t.components], component = (first + r) % t.components;
    T *row = a + r * t.depth;
    for (int64_t s = 0; s < t.n_sources; s++) {
      const MapSource<T> &source = t.sources[s];
      copy(source.x + node * source.width + source.offset + component * source.channels, row, source.channels);
      row += source.channels;
    }
    to[r] = t.out + node * t.width + t.offset + component * t.columns;
  }
  for (T *k = a + rows * t.depth; k < a + (rows + TILE - 1) / TILE * TILE * t.depth; k++) *k = T(0);
  for (int64_t column = 0; column < t.columns; column += P) {
    const int64_t n = t.columns - column < P ? t.columns - column : P;
    for (int64_t r = 0; r < rows; r += TILE) {
      const int count = (int) (rows - r < TILE ? rows - r : TILE);
      tile_of<T>(count)(a + r * t.depth, t.depth, t, species, column, scratch);
      for (int k = 0; k < count; k++) copy(scratch + k * P, to[r + k] + column, n);
    }
  }
}

template <typename T>
void sums(const MapTarget<T> *targets, int64_t n_targets, const int64_t *nodes, int64_t n, int64_t species)
{
  int64_t size = 0;
  for (int64_t k = 0; k < n_targets; k++) {
    const int64_t rows = n * targets[k].components, most = rows < BLOCK ? (rows + TILE - 1) / TILE * TILE : BLOCK;
    size = most * targets[k].depth > size ? most * targets[k].depth : size;
  }
  Aligned<T> memory;
  T *const scratch = memory.reserve(TILE * 2 * Lanes<T>::count + size);
  for (int64_t k = 0; k < n_targets; k++) {
    const int64_t rows = n * targets[k].components;
    for (int64_t first = 0; first < rows; first += BLOCK)
      map_block(targets[k], nodes, first, rows - first < BLOCK ? rows - first : BLOCK, species, scratch);
  }
}

template <typename T> inline Vector<T> logistic(const Vector<T> &x) { return T(1) / (T(1) + exponential<T>(-x)); }

template <typename T> inline Vector<T> hyperbolic_tangent(const Vector<T> &x)
{
  const Vector<T> e = exponential_less_one<T>(x + x);
  return e / (e + T(2));
}

/// f(x[k]) for k < n, vector by vector.
template <typename T, typename Function> inline void apply(const Function &f, const T *x, T *to, int64_t n)
{
  constexpr int V = Lanes<T>::count;
  for (int64_t k = 0; k < n; k += V) {
    const int m = n - k < V ? (int) (n - k) : V;
    store(to + k, f(load(x + k, m), k, m), m);
  }
}

template <typename T> void gate(const GateShape &s, int64_t first, int64_t last, const T *x, T *out)
{
  const int64_t scalars = s.n_even + s.n_odd;
  int64_t gated = 0;
  for (int64_t b = 0; b < s.n_blocks; b++) gated += s.blocks[2 * b] * s.blocks[2 * b + 1];
  Aligned<T> memory;
  T *const gates = memory.reserve(s.n_gates + 1);
  const T silu = T(s.silu), tanh = T(s.tanh), factor = T(s.gate);
  for (int64_t node = first; node < last; node++) {
    const T *row = x + node * (scalars + s.n_gates + gated);
    T *to = out + node * (scalars + gated);
    apply<T>([&](const Vector<T> &v, int64_t, int) { return Vector<T>(v * logistic<T>(v) * silu); }, row, to, s.n_even);
    apply<T>([&](const Vector<T> &v, int64_t, int) { return Vector<T>(hyperbolic_tangent<T>(v) * tanh); },
             row + s.n_even, to + s.n_even, s.n_odd);
    apply<T>([&](const Vector<T> &v, int64_t, int) {
      const Vector<T> l = logistic<T>(v);
      return Vector<T>((s.sigmoid ? l : Vector<T>(v * l)) * factor);
    }, row + scalars, gates, s.n_gates);
    const T *from = row + scalars + s.n_gates, *g = gates;
    to += scalars;
    for (int64_t b = 0; b < s.n_blocks; b++) {
      const int64_t channels = s.blocks[2 * b + 1];
      for (int64_t m = 0; m < s.blocks[2 * b]; m++, from += channels, to += channels)
        apply<T>([&](const Vector<T> &v, int64_t k, int n) { return Vector<T>(v * load(g + k, n)); }, from, to, channels);
      g += channels;
    }
  }
}

template <typename T>
void gate_backward(const GateShape &s, int64_t first, int64_t last, const T *g, const T *x, T *gx)
{
  const int64_t scalars = s.n_even + s.n_odd;
  int64_t gated = 0;
  for (int64_t b = 0; b < s.n_blocks; b++) gated += s.blocks[2 * b] * s.blocks[2 * b + 1];
  Aligned<T> memory;
  T *const gates = memory.reserve(2 * s.n_gates + 1), *const pulled = gates + s.n_gates;
  const T silu = T(s.silu), tanh = T(s.tanh), factor = T(s.gate);
  const auto silu_slope = [](const Vector<T> &v) {
    const Vector<T> l = logistic<T>(v);
    return Vector<T>(l + v * l * (T(1) - l));
  };
  for (int64_t node = first; node < last; node++) {
    const T *row = x + node * (scalars + s.n_gates + gated), *along = g + node * (scalars + gated);
    T *to = gx + node * (scalars + s.n_gates + gated);
    apply<T>([&](const Vector<T> &v, int64_t k, int n) {
      return Vector<T>(silu_slope(v) * load(along + k, n) * silu);
    }, row, to, s.n_even);
    const T *along_odd = along + s.n_even;
    apply<T>([&](const Vector<T> &v, int64_t k, int n) {
      const Vector<T> t = hyperbolic_tangent<T>(v);
      return Vector<T>((T(1) - t * t) * load(along_odd + k, n) * tanh);
    }, row + s.n_even, to + s.n_even, s.n_odd);
    apply<T>([&](const Vector<T> &v, int64_t, int) {
      const Vector<T> l = logistic<T>(v);
      return Vector<T>((s.sigmoid ? l : Vector<T>(v * l)) * factor);
    }, row + scalars, gates, s.n_gates);
    for (int64_t k = 0; k < s.n_gates; k++) pulled[k] = T(0);
    const T *v = row + scalars + s.n_gates, *from = along + scalars, *by = gates;
    T *gv = to + scalars + s.n_gates, *sum = pulled;
    for (int64_t b = 0; b < s.n_blocks; b++) {
      const int64_t channels = s.blocks[2 * b + 1];
      for (int64_t m = 0; m < s.blocks[2 * b]; m++, v += channels, from += channels, gv += channels)
        apply<T>([&](const Vector<T> &d, int64_t k, int n) {
          store(sum + k, Vector<T>(load(sum + k, n) + d * load(v + k, n)), n);
          return Vector<T>(d * load(by + k, n));
        }, from, gv, channels);
      by += channels, sum += channels;
    }
    apply<T>([&](const Vector<T> &u, int64_t k, int n) {
      const Vector<T> l = logistic<T>(u), slope = s.sigmoid ? Vector<T>(l * (T(1) - l)) : silu_slope(u);
      return Vector<T>(slope * load(pulled + k, n) * factor);
    }, row + scalars, to + scalars, s.n_gates);
  }
}

}    // namespace

extern const NodeKernels<float> MLPLUGINS_CONCAT(float_node_, MLPLUGINS_ISA) = {sums<float>, gate<float>,
                                                                               gate_backward<float>};
extern const NodeKernels<double> MLPLUGINS_CONCAT(double_node_, MLPLUGINS_ISA) = {sums<double>, gate<double>,
                                                                                 gate_backward<double>};

}    // namespace mlplugins
