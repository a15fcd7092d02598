// SPDX-License-Identifier: BSD-3-Clause
// Compiled once per instruction set; MLPLUGINS_ISA names the namespace. Nothing but plain loops may live here:
// an inline function of a library, compiled for AVX-512, could be picked by the linker for everybody.

#include "symmetric_contraction_kernel.h"
#include "vectors.h"

namespace mlplugins {
namespace {

/// Numbers that one sweep works on: values, or values with their derivative along a direction.
template <typename T> struct Real {
  Vector<T> value;
};
template <typename T> struct Dual {
  Vector<T> value, slope;
};

template <typename T> inline void read(Real<T> &a, const T *value, const T *, int64_t offset, int n)
{
  a.value = load(value + offset, n);
}

template <typename T> inline void read(Dual<T> &a, const T *value, const T *slope, int64_t offset, int n)
{
  a.value = load(value + offset, n);
  a.slope = slope ? load(slope + offset, n) : Vector<T>{};
}

template <typename T> inline const Vector<T> &result(const Real<T> &a) { return a.value; }
template <typename T> inline const Vector<T> &result(const Dual<T> &a) { return a.slope; }

/// sum += a b
template <typename T> inline void add_product(Real<T> &sum, const Real<T> &a, const Real<T> &b)
{
  sum.value += a.value * b.value;
}
template <typename T> inline void add_product(Dual<T> &sum, const Dual<T> &a, const Dual<T> &b)
{
  sum.value += a.value * b.value;
  sum.slope += a.value * b.slope + a.slope * b.value;
}
template <typename T> inline void add_product(Dual<T> &sum, const Dual<T> &a, const Real<T> &b)
{
  sum.value += a.value * b.value;
  sum.slope += a.slope * b.value;
}

/// Channels and nodes of one share, cut into blocks of `Block` nodes that go through the terms together.
template <typename T, typename Number, int Block> struct Sweep {
  const Polynomial &p;
  const Share &share;
  const ContractionInput<T> &input;
  const int lanes;
  const int64_t x_width, out_width, n_values;
  Number *const v;    ///< values (n_values, Block)
  Number *const c;    ///< coefficients, in the order of the terms

  Sweep(const Polynomial &p_, const Share &share_, const ContractionInput<T> &input_)
      : p(p_), share(share_), input(input_),
        lanes(p.channels - share.channel < Lanes<T>::count ? (int) (p.channels - share.channel) : Lanes<T>::count),
        x_width(p.n_in * p.channels), out_width(p.n_out * p.channels), n_values(p.n_in + 1 + p.n_pairs),
        v(new Number[n_values * Block]), c(new Number[p.n_terms])
  {
    for (int m = 0; m < p.n_terms; m++) read(c[m], input.c, input.dc, p.row[m] * p.channels + share.channel, lanes);
  }
  Sweep(const Sweep &) = delete;
  ~Sweep()
  {
    delete[] v;
    delete[] c;
  }

  /// Nodes of the block that starts at `first`.
  int filled(int64_t first) const
  {
    return share.n_nodes - first < Block ? (int) (share.n_nodes - first) : Block;
  }

  /// The values of the nodes from `first` on; nodes that are missing in the last block count as zero.
  void set_values(int64_t first)
  {
    const int count = filled(first);
    for (int n = 0; n < Block; n++)
      for (int i = 0; i < p.n_in; i++) {
        v[i * Block + n] = Number{};
        if (n < count)
          read(v[i * Block + n], input.x, input.dx,
               share.nodes[first + n] * x_width + i * p.channels + share.channel, lanes);
      }
    for (int n = 0; n < Block; n++) {
      v[p.n_in * Block + n] = Number{};
      v[p.n_in * Block + n].value = Vector<T>{} + T(1);
    }
    Number *to = v + (p.n_in + 1) * Block;
    for (int q = 0; q < p.n_pairs; q++, to += Block) {
      const Number *a = v + p.pairs[q].first * Block, *b = v + p.pairs[q].second * Block;
      for (int n = 0; n < Block; n++) {
        Number product{};
        add_product(product, a[n], b[n]);
        to[n] = product;
      }
    }
  }

  /// Rows of the result (count components, Block) of the nodes from `first` on.
  void store_rows(int64_t first, const Number *from, int count, T *to) const
  {
    for (int n = 0; n < filled(first); n++) {
      T *row = to + share.nodes[first + n] * count * p.channels + share.channel;
      for (int k = 0; k < count; k++) store(row + k * p.channels, result(from[k * Block + n]), lanes);
    }
  }
};

template <typename T>
void forward(const Polynomial &p, const Share &share, const ContractionInput<T> &input,
             const ContractionOutput<T> &output)
{
  constexpr int B = 4;
  Sweep<T, Real<T>, B> sweep(p, share, input);
  Real<T> *out = new Real<T>[p.n_out * B];
  for (int64_t first = 0; first < share.n_nodes; first += B) {
    sweep.set_values(first);
    for (int k = 0; k < p.n_out * B; k++) out[k] = Real<T>{};
    for (int k = 0, m = 0; k < p.n_segments; k++) {
      const Segment &s = p.segments[k];
      Real<T> sum[B] = {};
      for (; m < s.end; m++) {
        const Real<T> c = sweep.c[m], *right = sweep.v + p.right[m] * B;
        for (int n = 0; n < B; n++) add_product(sum[n], c, right[n]);
      }
      for (int n = 0; n < B; n++) add_product(out[s.output * B + n], sum[n], sweep.v[s.left * B + n]);
    }
    sweep.store_rows(first, out, p.n_out, output.out);
  }
  delete[] out;
}

/// Values and gradients in one sweep; `Coefficients` says whether ∂Φ/∂c is wanted.
template <typename T, typename Number, int B, bool Coefficients>
void gradients(const Polynomial &p, const Share &share, const ContractionInput<T> &input,
               const ContractionOutput<T> &output)
{
  Sweep<T, Number, B> sweep(p, share, input);
  const int64_t n_values = sweep.n_values;
  const Number *v = sweep.v;
  Number *out = new Number[p.n_out * B], *gv = new Number[n_values * B];
  Number *gc = new Number[Coefficients ? p.n_terms : 0]();
  Real<T> *g = new Real<T>[p.n_out * B];
  for (int64_t first = 0; first < share.n_nodes; first += B) {
    sweep.set_values(first);
    const int count = sweep.filled(first);
    for (int k = 0; k < p.n_out * B; k++) {
      out[k] = Number{};
      g[k] = Real<T>{};
      if (k % B < count)
        g[k].value = load(input.g + share.nodes[first + k % B] * sweep.out_width + k / B * p.channels +
                              share.channel, sweep.lanes);
    }
    for (int64_t k = 0; k < n_values * B; k++) gv[k] = Number{};
    for (int k = 0, m = 0; k < p.n_segments; k++) {
      const Segment &s = p.segments[k];
      const Real<T> *gk = g + s.output * B;
      Number sum[B] = {}, pulled[B] = {};
      for (int n = 0; n < B; n++) add_product(pulled[n], v[s.left * B + n], gk[n]);
      for (; m < s.end; m++) {
        const Number c = sweep.c[m], *right = v + p.right[m] * B;
        Number *g_right = gv + p.right[m] * B;
        for (int n = 0; n < B; n++) {
          add_product(sum[n], c, right[n]);
          add_product(g_right[n], pulled[n], c);
        }
        if constexpr (Coefficients) {
          Number total = gc[m];
          for (int n = 0; n < B; n++) add_product(total, pulled[n], right[n]);
          gc[m] = total;
        }
      }
      for (int n = 0; n < B; n++) {
        add_product(gv[s.left * B + n], sum[n], gk[n]);
        if (output.out) add_product(out[s.output * B + n], sum[n], v[s.left * B + n]);
      }
    }
    for (int q = 0; q < p.n_pairs; q++) {
      const Number *gq = gv + (p.n_in + 1 + q) * B;
      const int a = p.pairs[q].first * B, b = p.pairs[q].second * B;
      for (int n = 0; n < B; n++) {
        add_product(gv[a + n], gq[n], v[b + n]);
        add_product(gv[b + n], gq[n], v[a + n]);
      }
    }
    if (output.x) sweep.store_rows(first, gv, p.n_in, output.x);
    if (output.out) sweep.store_rows(first, out, p.n_out, output.out);
  }
  if constexpr (Coefficients)
    for (int m = 0; m < p.n_terms; m++)
      store(output.c + p.row[m] * p.channels + share.channel, result(gc[m]), sweep.lanes);
  delete[] out;
  delete[] gv;
  delete[] gc;
  delete[] g;
}

template <typename T>
void backward(const Polynomial &p, const Share &share, const ContractionInput<T> &input,
              const ContractionOutput<T> &output)
{
  if (output.c) gradients<T, Real<T>, 4, true>(p, share, input, output);
  else gradients<T, Real<T>, 4, false>(p, share, input, output);
}

template <typename T>
void double_backward(const Polynomial &p, const Share &share, const ContractionInput<T> &input,
                     const ContractionOutput<T> &output)
{
  if (output.c) gradients<T, Dual<T>, 2, true>(p, share, input, output);
  else gradients<T, Dual<T>, 2, false>(p, share, input, output);
}

}    // namespace

extern const ContractionKernels<float> MLPLUGINS_CONCAT(float_contraction_, MLPLUGINS_ISA) = {
    Lanes<float>::count, forward<float>, backward<float>, double_backward<float>};
extern const ContractionKernels<double> MLPLUGINS_CONCAT(double_contraction_, MLPLUGINS_ISA) = {
    Lanes<double>::count, forward<double>, backward<double>, double_backward<double>};

}    // namespace mlplugins
