// SPDX-License-Identifier: BSD-3-Clause
// Op mlplugins::forces_and_virials: forces and virials from the derivatives g_e = ∂E/∂v_e by the edge vectors,
//   F_i = Σ_{e: centre i} g_e − Σ_{e: neighbour i} g_e,   W = −½ Σ_e (v_e ⊗ g_e + g_e ⊗ v_e),
// W of each system and, if wanted, of each atom: half of an edge's part to either end.

#include "ops.h"

#include <ATen/ATen.h>
#include <torch/csrc/autograd/custom_function.h>

#include <algorithm>
#include <tuple>

namespace mlplugins {
namespace {

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

struct EdgeList {
  const Tensor &centers, &neighbors, &system;
  int64_t n_systems;
  bool per_atom;
  int64_t n_atoms() const { return system.size(0); }
  int64_t n_virials() const { return per_atom ? n_atoms() : 0; }
};

void check_edges(const Tensor &gradient, const Tensor &vectors, const EdgeList &edges)
{
  const int64_t n = edges.centers.dim() == 1 ? edges.centers.size(0) : -1;
  TORCH_CHECK(gradient.sizes() == at::IntArrayRef({n, 3}) && vectors.sizes() == gradient.sizes() &&
                  edges.neighbors.sizes() == edges.centers.sizes() && edges.system.dim() == 1,
              "forces_and_virials: expected gradient and vectors (E, 3), centers and neighbors (E,), system (N,), got ",
              gradient.sizes(), ", ", vectors.sizes(), ", ", edges.centers.sizes(), ", ", edges.neighbors.sizes(),
              " and ", edges.system.sizes());
  for (const Tensor &t : {gradient, vectors})
    TORCH_CHECK(t.scalar_type() == at::kFloat || t.scalar_type() == at::kDouble,
                "forces_and_virials: expected float32 or float64, got ", t.scalar_type());
  for (const Tensor &t : {edges.centers, edges.neighbors, edges.system})
    TORCH_CHECK(t.scalar_type() == at::kLong, "forces_and_virials: centers, neighbors and system must be int64");
  for (const Tensor &t : {gradient, vectors, edges.centers, edges.neighbors, edges.system})
    TORCH_CHECK(t.layout() == at::kStrided && t.device() == vectors.device(),
                "forces_and_virials: all tensors must be dense and on one device");
  TORCH_CHECK(edges.n_systems >= 0, "forces_and_virials: n_systems is ", edges.n_systems);
}

/// The upper triangle of a symmetric 3 × 3 matrix, row by row.
void add_symmetric(double *w, const double *part)
{
  w[0] += part[0], w[1] += part[1], w[2] += part[2], w[4] += part[3], w[5] += part[4], w[8] += part[5];
}

void mirror(double *w, int64_t count)
{
  for (int64_t k = 0; k < count; k++, w += 9) w[3] = w[1], w[6] = w[2], w[7] = w[5];
}

template <typename G, typename V>
void sum_edges(const Tensor &gradient, const Tensor &vectors, const EdgeList &edges, const Three &sums)
{
  const G *g = gradient.const_data_ptr<G>();
  const V *v = vectors.const_data_ptr<V>();
  const int64_t *const i = edges.centers.const_data_ptr<int64_t>(), *const j = edges.neighbors.const_data_ptr<int64_t>(),
                *const system = edges.system.const_data_ptr<int64_t>();
  double *const f = std::get<0>(sums).data_ptr<double>(), *const w = std::get<1>(sums).data_ptr<double>(),
               *const w_atom = std::get<2>(sums).data_ptr<double>();
  const int64_t n_atoms = edges.n_atoms(), n_edges = edges.centers.size(0);
  double *whose = nullptr, sum[9];    // the virial of the system at hand is summed in registers
  for (int64_t e = 0; e < n_edges; e++, g += 3, v += 3) {
    TORCH_CHECK(i[e] >= 0 && i[e] < n_atoms && j[e] >= 0 && j[e] < n_atoms && system[i[e]] >= 0 &&
                    system[i[e]] < edges.n_systems,
                "forces_and_virials: edge ", e, " has no such atom or system");
    const double a = g[0], b = g[1], c = g[2], x = v[0], y = v[1], z = v[2];
    double *const from = f + 3 * i[e], *const to = f + 3 * j[e];
    from[0] += a, from[1] += b, from[2] += c;
    to[0] -= a, to[1] -= b, to[2] -= c;
    double part[6] = {-x * a,           -0.5 * (x * b + y * a), -0.5 * (x * c + z * a),
                      -y * b, -0.5 * (y * c + z * b), -z * c};
    double *const of_system = w + 9 * system[i[e]];
    if (of_system != whose) {
      if (whose) std::copy_n(sum, 9, whose);
      std::copy_n(whose = of_system, 9, sum);
    }
    add_symmetric(sum, part);
    if (!edges.per_atom) continue;
    for (double &p : part) p *= 0.5;
    add_symmetric(w_atom + 9 * i[e], part);
    add_symmetric(w_atom + 9 * j[e], part);
  }
  if (whose) std::copy_n(sum, 9, whose);
  mirror(w, edges.n_systems);
  mirror(w_atom, edges.n_virials());
}

Three beneath_autograd(const Tensor &gradient, const Tensor &vectors, const Tensor &centers, const Tensor &neighbors,
                       const Tensor &system, int64_t n_systems, bool per_atom)
{
  static const auto op = dispatched<decltype(cpu::forces_and_virials)>("forces_and_virials");
  at::AutoDispatchBelowADInplaceOrView guard;
  return op.call(gradient, vectors, centers, neighbors, system, n_systems, per_atom);
}

class ForcesAndVirials : public torch::autograd::Function<ForcesAndVirials> {
 public:
  static variable_list forward(AutogradContext *context, const Tensor &gradient, const Tensor &vectors,
                               const Tensor &centers, const Tensor &neighbors, const Tensor &system, int64_t n_systems,
                               bool per_atom)
  {
    context->save_for_backward({gradient, vectors, centers, neighbors, system});
    return list(beneath_autograd(gradient, vectors, centers, neighbors, system, n_systems, per_atom));
  }

  /// With A_e = the symmetric part of the gradients of W: ∂/∂g_e = f_i − f_j − A_e v_e and ∂/∂v_e = −A_e g_e.
  static variable_list backward(AutogradContext *context, variable_list d)
  {
    const auto saved = context->get_saved_variables();
    const Tensor &g = saved[0], &v = saved[1], &i = saved[2], &j = saved[3], &system = saved[4];
    Tensor a, dg = at::zeros_like(v), dv = at::zeros_like(v);
    if (d[1].defined()) a = d[1].index_select(0, system.index_select(0, i));
    if (d[2].defined() && d[2].size(0) > 0) {
      const Tensor half = 0.5 * (d[2].index_select(0, i) + d[2].index_select(0, j));
      a = a.defined() ? a + half : half;
    }
    if (d[0].defined()) dg = d[0].index_select(0, i) - d[0].index_select(0, j);
    if (a.defined()) {
      const Tensor symmetric = 0.5 * (a + a.transpose(1, 2));
      dg = dg - symmetric.matmul(v.unsqueeze(2)).squeeze(2);
      dv = -symmetric.matmul(g.to(v.scalar_type()).unsqueeze(2)).squeeze(2);
    }
    return {dg.to(g.scalar_type()), dv, {}, {}, {}, {}, {}};
  }
};

}    // namespace

Three cpu::forces_and_virials(const Tensor &gradient, const Tensor &vectors, const Tensor &centers,
                              const Tensor &neighbors, const Tensor &system, int64_t n_systems, bool per_atom)
{
  check_edges(gradient, vectors, {centers, neighbors, system, n_systems, per_atom});
  const Tensor g = gradient.contiguous(), v = vectors.contiguous(), i = centers.contiguous(),
               j = neighbors.contiguous(), s = system.contiguous();
  const EdgeList edges{i, j, s, n_systems, per_atom};
  const auto zeros = [&](at::IntArrayRef shape) { return at::zeros(shape, v.options().dtype(at::kDouble)); };
  const Three sums{zeros({edges.n_atoms(), 3}), zeros({n_systems, 3, 3}), zeros({edges.n_virials(), 3, 3})};
  const bool single = g.scalar_type() == at::kFloat;
  if (v.scalar_type() == at::kFloat)
    (single ? sum_edges<float, float> : sum_edges<double, float>) (g, v, edges, sums);
  else
    (single ? sum_edges<float, double> : sum_edges<double, double>) (g, v, edges, sums);
  const auto result = [&](const Tensor &t) { return t.to(v.scalar_type()); };
  return {result(std::get<0>(sums)), result(std::get<1>(sums)), result(std::get<2>(sums))};
}

Three reference::forces_and_virials(const Tensor &gradient, const Tensor &vectors, const Tensor &centers,
                                    const Tensor &neighbors, const Tensor &system, int64_t n_systems, bool per_atom)
{
  const EdgeList edges{centers, neighbors, system, n_systems, per_atom};
  check_edges(gradient, vectors, edges);
  const auto zeros = [&](at::IntArrayRef shape) { return at::zeros(shape, vectors.options()); };
  const Tensor g = gradient.to(vectors.scalar_type()), outer = vectors.unsqueeze(2) * g.unsqueeze(1);
  const Tensor w = -0.5 * (outer + outer.transpose(1, 2)), half = per_atom ? 0.5 * w : w.narrow(0, 0, 0);
  const auto ends = [&](const Tensor &t) { return per_atom ? t : t.narrow(0, 0, 0); };
  return {zeros({edges.n_atoms(), 3}).index_add(0, centers, g).index_add(0, neighbors, -g),
          zeros({n_systems, 3, 3}).index_add(0, system.index_select(0, centers), w),
          zeros({edges.n_virials(), 3, 3}).index_add(0, ends(centers), half).index_add(0, ends(neighbors), half)};
}

Three autograd::forces_and_virials(const Tensor &gradient, const Tensor &vectors, const Tensor &centers,
                                   const Tensor &neighbors, const Tensor &system, int64_t n_systems, bool per_atom)
{
  if (!differentiable({gradient, vectors}))
    return beneath_autograd(gradient, vectors, centers, neighbors, system, n_systems, per_atom);
  const auto found = ForcesAndVirials::apply(gradient, vectors, centers, neighbors, system, n_systems, per_atom);
  return {found[0], found[1], found[2]};
}

}    // namespace mlplugins
