// SPDX-License-Identifier: BSD-3-Clause
// Op mlplugins::harmonics: lengths of vectors, and real spherical harmonics of them up to degree 3 (the components in
// e3nn's order, Σ_m Y_lm² = 2l + 1), of their directions or, solid, of the vectors themselves. Second derivatives are
// those of the reference.

#include "harmonics.h"

#include "ops.h"

#include <ATen/ATen.h>
#include <ATen/Parallel.h>
#include <torch/csrc/autograd/autograd.h>
#include <torch/csrc/autograd/custom_function.h>

#include <cmath>

namespace mlplugins {

void check_harmonics(const Tensor &vectors, int64_t l_max)
{
  TORCH_CHECK(vectors.layout() == at::kStrided && vectors.dim() == 2 && vectors.size(1) == 3,
              "harmonics: expected vectors (E, 3), got ", vectors.sizes());
  TORCH_CHECK(vectors.scalar_type() == at::kFloat || vectors.scalar_type() == at::kDouble,
              "harmonics: expected float32 or float64, got ", vectors.scalar_type());
  TORCH_CHECK(l_max >= 1 && l_max <= 3, "harmonics: expected a degree of 1 to 3, got ", l_max);
}

namespace {

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

/// Y_1m … of (x, y, z) behind each other.
template <typename T> void evaluate(T x, T y, T z, int64_t l_max, T *to)
{
  using namespace harmonic_factors;
  if (l_max < 1) return;
  to[0] = T(S3) * x, to[1] = T(S3) * y, to[2] = T(S3) * z;
  if (l_max < 2) return;
  const T xz = x * x + z * z, yy = y * y;
  const T a = x * z, b = T(0.5) * (z * z - x * x);
  to[3] = T(S15) * a, to[4] = T(S15) * x * y, to[5] = T(S5) * (yy - T(0.5) * xz), to[6] = T(S15) * y * z, to[7] = T(S15) * b;
  if (l_max < 3) return;
  const T f = T(4) * yy - xz;
  to[8] = T(C33) * (a * z + b * x), to[9] = T(S105) * a * y, to[10] = T(C31) * f * x;
  to[11] = T(0.5) * T(S7) * y * (T(2) * yy - T(3) * xz);
  to[12] = T(C31) * f * z, to[13] = T(S105) * b * y, to[14] = T(C33) * (b * z - a * x);
}

/// The gradient of Σ g Y.
template <typename T> void pull(T x, T y, T z, int64_t l_max, const T *g, T *to)
{
  using namespace harmonic_factors;
  to[0] = to[1] = to[2] = T(0);
  if (l_max < 1) return;
  for (int k = 0; k < 3; k++) to[k] = T(S3) * g[k];
  if (l_max < 2) return;
  const T g4 = T(S15) * g[4], g5 = T(S5) * g[5], g6 = T(S15) * g[6];
  T ga = T(S15) * g[3], gb = T(S15) * g[7];    // of a = x z and b = (z² − x²) / 2
  to[0] += g4 * y - g5 * x, to[1] += g4 * x + T(2) * g5 * y + g6 * z, to[2] += g6 * y - g5 * z;
  if (l_max >= 3) {
    const T xz = x * x + z * z, yy = y * y, f = T(4) * yy - xz, a = x * z, b = T(0.5) * (z * z - x * x);
    const T g8 = T(C33) * g[8], g9 = T(S105) * g[9], g10 = T(C31) * g[10], g11 = T(0.5) * T(S7) * g[11],
            g12 = T(C31) * g[12], g13 = T(S105) * g[13], g14 = T(C33) * g[14];
    ga += g8 * z + g9 * y - g14 * x;
    gb += g8 * x + g13 * y + g14 * z;
    const T gf = g10 * x + g12 * z;
    to[0] += g8 * b + g10 * f - T(2) * gf * x - T(6) * g11 * x * y - g14 * a;
    to[1] += g9 * a + T(8) * gf * y + g11 * (T(6) * yy - T(3) * xz) + g13 * b;
    to[2] += g8 * a + g12 * f - T(2) * gf * z - T(6) * g11 * y * z + g14 * b;
  }
  to[0] += ga * z - gb * x;
  to[2] += ga * x + gb * z;
}

constexpr int64_t EDGES = 2048;    // of a thread

template <typename T> Two forward_pass(const Tensor &vectors, int64_t l_max, bool solid)
{
  const int64_t n = vectors.size(0), width = (l_max + 1) * (l_max + 1);
  const Tensor r = at::empty({n}, vectors.options()), y = at::empty({n, width}, vectors.options());
  const T *const v = vectors.const_data_ptr<T>();
  T *const length = r.data_ptr<T>(), *const to = y.data_ptr<T>();
  at::parallel_for(0, n, EDGES, [&](int64_t first, int64_t last) {
    for (int64_t e = first; e < last; e++) {
      const T *at = v + 3 * e;
      length[e] = std::sqrt(at[0] * at[0] + at[1] * at[1] + at[2] * at[2]);
      const T by = solid ? T(1) : length[e];
      to[e * width] = T(1);
      evaluate<T>(at[0] / by, at[1] / by, at[2] / by, l_max, to + e * width + 1);
    }
  });
  return {r, y};
}

template <typename T>
Tensor backward_pass(const Tensor &gr, const Tensor &gy, const Tensor &vectors, int64_t l_max, bool solid)
{
  const int64_t n = vectors.size(0), width = (l_max + 1) * (l_max + 1);
  const Tensor gv = at::empty_like(vectors);
  const T *const v = vectors.const_data_ptr<T>(), *const along = gr.const_data_ptr<T>(), *const g = gy.const_data_ptr<T>();
  T *const to = gv.data_ptr<T>();
  at::parallel_for(0, n, EDGES, [&](int64_t first, int64_t last) {
    for (int64_t e = first; e < last; e++) {
      const T *at = v + 3 * e;
      const T r = std::sqrt(at[0] * at[0] + at[1] * at[1] + at[2] * at[2]), by = solid ? T(1) : r;
      const T u[3] = {at[0] / by, at[1] / by, at[2] / by};
      T d[3];
      pull<T>(u[0], u[1], u[2], l_max, g + e * width + 1, d);
      const T radial = solid ? along[e] / r : along[e] - (d[0] * u[0] + d[1] * u[1] + d[2] * u[2]) / r;
      for (int k = 0; k < 3; k++) to[3 * e + k] = d[k] / by + radial * u[k];
    }
  });
  return gv;
}

void check_gradients(const Tensor &gr, const Tensor &gy, const Tensor &vectors, int64_t l_max)
{
  const int64_t n = vectors.size(0);
  TORCH_CHECK(gr.sizes() == at::IntArrayRef({n}) && gy.sizes() == at::IntArrayRef({n, (l_max + 1) * (l_max + 1)}) &&
                  gr.scalar_type() == vectors.scalar_type() && gy.scalar_type() == vectors.scalar_type() &&
                  gr.device() == vectors.device() && gy.device() == vectors.device(),
              "harmonics: wrong gradients");
}

class Harmonics : public torch::autograd::Function<Harmonics> {
 public:
  static variable_list forward(AutogradContext *context, const Tensor &vectors, int64_t l_max, bool solid)
  {
    static const auto op = dispatched<decltype(cpu::harmonics)>("harmonics");
    context->save_for_backward({vectors});
    context->saved_data["l_max"] = l_max;
    context->saved_data["solid"] = solid;
    at::AutoDispatchBelowADInplaceOrView guard;
    const auto [r, y] = op.call(vectors, l_max, solid);
    return {r, y};
  }

  static variable_list backward(AutogradContext *context, variable_list g)
  {
    static const auto op = dispatched<decltype(cpu::harmonics_backward)>("harmonics_backward");
    const Tensor v = context->get_saved_variables()[0];
    const int64_t l_max = context->saved_data["l_max"].toInt();
    const bool solid = context->saved_data["solid"].toBool();
    if (!at::GradMode::is_enabled()) return {op.call(g[0], g[1], v, l_max, solid), Tensor(), Tensor()};
    const auto [r, y] = harmonics_of(v, l_max, solid);
    return {torch::autograd::grad({r, y}, {v}, {g[0], g[1]}, /*retain_graph=*/true, /*create_graph=*/true)[0], Tensor(),
            Tensor()};
  }
};

}    // namespace

Two cpu::harmonics(const Tensor &vectors, int64_t l_max, bool solid)
{
  check_harmonics(vectors, l_max);
  at::AutoDispatchBelowADInplaceOrView guard;
  const Tensor v = vectors.contiguous();
  return v.scalar_type() == at::kFloat ? forward_pass<float>(v, l_max, solid) : forward_pass<double>(v, l_max, solid);
}

Tensor cpu::harmonics_backward(const Tensor &gr_, const Tensor &gy_, const Tensor &vectors, int64_t l_max, bool solid)
{
  check_harmonics(vectors, l_max);
  check_gradients(gr_, gy_, vectors, l_max);
  at::AutoDispatchBelowADInplaceOrView guard;
  const Tensor v = vectors.contiguous(), gr = gr_.contiguous(), gy = gy_.contiguous();
  return v.scalar_type() == at::kFloat ? backward_pass<float>(gr, gy, v, l_max, solid)
                                       : backward_pass<double>(gr, gy, v, l_max, solid);
}

Two autograd::harmonics(const Tensor &vectors, int64_t l_max, bool solid)
{
  static const auto op = dispatched<decltype(cpu::harmonics)>("harmonics");
  if (!differentiable({vectors})) {
    at::AutoDispatchBelowADInplaceOrView guard;
    return op.call(vectors, l_max, solid);
  }
  const auto found = Harmonics::apply(vectors, l_max, solid);
  return {found[0], found[1]};
}

Tensor autograd::harmonics_backward(const Tensor &gr, const Tensor &gy, const Tensor &vectors, int64_t l_max, bool solid)
{
  static const auto op = dispatched<decltype(cpu::harmonics_backward)>("harmonics_backward");
  return without_derivatives(variable_list{gr, gy, vectors}, "harmonics: second derivatives of the fused gradient",
                             [&] { return variable_list{op.call(gr, gy, vectors, l_max, solid)}; })[0];
}

}    // namespace mlplugins
