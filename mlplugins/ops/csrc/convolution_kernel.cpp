// SPDX-License-Identifier: BSD-3-Clause
// Compiled once per instruction set; MLPLUGINS_ISA names the namespace. Nothing but plain loops may live here:
// an inline function of a library, compiled for AVX-512, could be picked by the linker for everybody.

#include "convolution_kernel.h"

#define CONCAT_(a, b) a##b
#define CONCAT(a, b) CONCAT_(a, b)

namespace mlplugins {
namespace {

template <typename T> struct Lanes {
  static constexpr int count = MLPLUGINS_VECTOR_BYTES / sizeof(T);
  typedef T type __attribute__((vector_size(MLPLUGINS_VECTOR_BYTES)));
};
template <typename T> using Vector = typename Lanes<T>::type;

template <typename T> inline Vector<T> load(const T *from, int n)
{
  Vector<T> v;
  if (n == Lanes<T>::count) {
    __builtin_memcpy(&v, from, sizeof(v));
  } else {
    v = Vector<T>{};
    for (int k = 0; k < n; k++) v[k] = from[k];
  }
  return v;
}

template <typename T> inline void store(T *to, const Vector<T> &v, int n)
{
  if (n == Lanes<T>::count) {
    __builtin_memcpy(to, &v, sizeof(v));
  } else {
    for (int k = 0; k < n; k++) to[k] = v[k];
  }
}

/// M = Σ_j C_j y_j for all paths of one edge.
template <typename T> inline void couple(const Convolution<T> &c, const T *y, T *m)
{
  for (int64_t k = 0; k < c.coupling_size; k++) m[k] = T(0);
  for (int64_t k = 0; k < c.n_entries; k++) m[c.entries[k].target] += c.entries[k].value * y[c.entries[k].harmonic];
}

/// out_k[u] += w[u] Σ_i M_ki x_i[u]
template <typename T, int D1, int D3>
inline void forward_path(const T *m, const T *x, const T *w, T *out, int channels)
{
  for (int u = 0; u < channels; u += Lanes<T>::count) {
    const int n = channels - u < Lanes<T>::count ? channels - u : Lanes<T>::count;
    Vector<T> xi[D1];
    const Vector<T> wu = load(w + u, n);
    for (int i = 0; i < D1; i++) xi[i] = load(x + i * channels + u, n) * wu;
    for (int k = 0; k < D3; k++) {
      Vector<T> sum = load(out + k * channels + u, n);
      for (int i = 0; i < D1; i++) sum += m[k * D1 + i] * xi[i];
      store(out + k * channels + u, sum, n);
    }
  }
}

/// Gradients of one path and edge: gm (per lane), gx (accumulated), gw (written).
template <typename T, int D1, int D3>
inline void backward_path(const T *m, const T *x, const T *w, const T *g, Vector<T> *gm, T *gx, T *gw, int channels)
{
  for (int u = 0; u < channels; u += Lanes<T>::count) {
    const int n = channels - u < Lanes<T>::count ? channels - u : Lanes<T>::count;
    const Vector<T> wu = load(w + u, n);
    Vector<T> xi[D1], pulled[D1];
    for (int i = 0; i < D1; i++) {
      xi[i] = load(x + i * channels + u, n);
      pulled[i] = Vector<T>{};
    }
    for (int k = 0; k < D3; k++) {
      const Vector<T> gk = load(g + k * channels + u, n);
      const Vector<T> wg = wu * gk;
      for (int i = 0; i < D1; i++) {
        pulled[i] += m[k * D1 + i] * gk;
        gm[k * D1 + i] += wg * xi[i];
      }
    }
    Vector<T> along = Vector<T>{};
    for (int i = 0; i < D1; i++) along += pulled[i] * xi[i];
    if (gw) store(gw + u, along, n);
    if (gx)
      for (int i = 0; i < D1; i++) {
        T *target = gx + i * channels + u;
        store(target, Vector<T>(load(target, n) + wu * pulled[i]), n);
      }
  }
}

template <typename T> using ForwardPath = void (*)(const T *, const T *, const T *, T *, int);
template <typename T>
using BackwardPath = void (*)(const T *, const T *, const T *, const T *, Vector<T> *, T *, T *, int);

#define TABLE(f)                                                                                               \
  {{f<T, 1, 1>, f<T, 1, 3>, f<T, 1, 5>, f<T, 1, 7>},                                                           \
   {f<T, 3, 1>, f<T, 3, 3>, f<T, 3, 5>, f<T, 3, 7>},                                                           \
   {f<T, 5, 1>, f<T, 5, 3>, f<T, 5, 5>, f<T, 5, 7>},                                                           \
   {f<T, 7, 1>, f<T, 7, 3>, f<T, 7, 5>, f<T, 7, 7>}}

template <typename T> void forward(const Convolution<T> &c, int64_t first, int64_t last, T *out)
{
  static const ForwardPath<T> table[4][4] = TABLE(forward_path);
  T *m = new T[c.coupling_size];
  for (int64_t center = first; center < last; center++) {
    T *row = out + center * c.out_width;
    for (int64_t k = 0; k < c.out_width; k++) row[k] = T(0);
    for (int64_t e = c.rows[center]; e < c.rows[center + 1]; e++) {
      couple(c, c.y + e * c.y_width, m);
      const T *x = c.h + c.neighbors[e] * c.h_width;
      const T *w = c.w + e * c.w_width;
      for (int64_t k = 0; k < c.n_paths; k++) {
        const Path &p = c.paths[k];
        table[p.d1 / 2][p.d3 / 2](m + p.coupling, x + p.input, w + p.weight, row + p.output, p.channels);
      }
    }
  }
  delete[] m;
}

template <typename T>
void backward(const Convolution<T> &c, int64_t first, int64_t last, const T *g, const Gradients<T> &gradients)
{
  static const BackwardPath<T> table[4][4] = TABLE(backward_path);
  T *m = new T[c.coupling_size];
  Vector<T> *gm = new Vector<T>[c.coupling_size];
  Vector<T> *gy = new Vector<T>[c.y_width];
  for (int64_t center = first; center < last; center++) {
    const T *row = g + center * c.out_width;
    for (int64_t e = c.rows[center]; e < c.rows[center + 1]; e++) {
      couple(c, c.y + e * c.y_width, m);
      for (int64_t k = 0; k < c.coupling_size; k++) gm[k] = Vector<T>{};
      const T *x = c.h + c.neighbors[e] * c.h_width;
      const T *w = c.w + e * c.w_width;
      T *gx = gradients.h ? gradients.h + c.neighbors[e] * c.h_width : nullptr;
      T *gw = gradients.w ? gradients.w + e * c.w_width : nullptr;
      for (int64_t k = 0; k < c.n_paths; k++) {
        const Path &p = c.paths[k];
        table[p.d1 / 2][p.d3 / 2](m + p.coupling, x + p.input, w + p.weight, row + p.output, gm + p.coupling,
                                  gx ? gx + p.input : nullptr, gw ? gw + p.weight : nullptr, p.channels);
      }
      if (!gradients.y) continue;
      for (int64_t j = 0; j < c.y_width; j++) gy[j] = Vector<T>{};
      for (int64_t k = 0; k < c.n_entries; k++) gy[c.entries[k].harmonic] += c.entries[k].value * gm[c.entries[k].target];
      T *to = gradients.y + e * c.y_width;
      for (int64_t j = 0; j < c.y_width; j++) {
        T sum = T(0);
        for (int lane = 0; lane < Lanes<T>::count; lane++) sum += gy[j][lane];
        to[j] = sum;
      }
    }
  }
  delete[] m;
  delete[] gm;
  delete[] gy;
}

}    // namespace

extern const Kernels<float> CONCAT(float_kernels_, MLPLUGINS_ISA) = {forward<float>, backward<float>};
extern const Kernels<double> CONCAT(double_kernels_, MLPLUGINS_ISA) = {forward<double>, backward<double>};

}    // namespace mlplugins
