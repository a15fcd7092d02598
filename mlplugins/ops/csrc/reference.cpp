// SPDX-License-Identifier: BSD-3-Clause
// The ops in ATen's own operations: what other devices than the CPU compute with, and the one statement of the
// mathematics in C++ (in Python: mlplugins/ops/reference.py; a test compares the two). Gradients are made by
// differentiating these functions.

#include "convolution.h"
#include "gate.h"
#include "harmonics.h"
#include "kernel_sum.h"
#include "linear.h"
#include "linear_sums.h"
#include "node_kernel.h"
#include "ops.h"
#include "symmetric_contraction.h"

#include <c10/core/impl/LocalDispatchKeySet.h>
#include <torch/csrc/autograd/autograd.h>
#include <torch/csrc/autograd/custom_function.h>

#include <algorithm>
#include <map>

namespace mlplugins {
namespace {

using torch::autograd::variable_list;

/// Inputs of a function that is differentiated beneath autograd, and autograd for the time of it.
class Differentiation {
 public:
  explicit Differentiation(const variable_list &inputs) : keys(above()), recording(true)
  {
    for (const Tensor &t : inputs) leaves.push_back(t.detach().requires_grad_());
  }
  const Tensor &operator[](size_t k) const { return leaves[k]; }

  /// Gradients of ⟨g, outputs⟩ with respect to the inputs.
  variable_list gradients(const variable_list &outputs, const variable_list &g, bool again = false) const
  {
    variable_list d = torch::autograd::grad(outputs, leaves, g, /*retain_graph=*/again, /*create_graph=*/again,
                                            /*allow_unused=*/true);
    for (size_t k = 0; k < d.size(); k++)
      if (!d[k].defined()) d[k] = at::zeros_like(leaves[k]);
    return d;
  }

 private:
  c10::impl::ForceDispatchKeyGuard keys;
  at::AutoGradMode recording;
  variable_list leaves;

  static c10::impl::LocalDispatchKeySet above()
  {
    auto keys = c10::impl::tls_local_dispatch_key_set();
    keys.excluded_ = keys.excluded_ - c10::autograd_dispatch_keyset_with_ADInplaceOrView;
    return keys;
  }
};

Three chosen(const variable_list &d, Wanted wanted)
{
  Tensor t[3];
  for (int k = 0; k < 3; k++) t[k] = wanted[k] ? d[k].detach() : d[k].new_empty({0});
  return {t[0], t[1], t[2]};
}

/// m_i = Σ_{e: centre i} w_e ⊙ (h_{neighbour(e)} ⊗ y_e)
Tensor convolved(const Graph &graph, const Tensor &h, const Tensor &y, const Tensor &weights)
{
  const Tensor w = graph.row.defined() ? weights.index_select(0, graph.row) : weights;
  const Tensor table = graph.paths.cpu().contiguous();
  const int64_t n_paths = table.size(0), n_edges = graph.centers.size(0);
  const int64_t n_coupling = (table.select(1, 3) + table.select(1, 5) * table.select(1, 6)).max().item<int64_t>();
  const Tensor basis = at::zeros({y.size(1), n_coupling}, y.options())
                           .index_put({graph.entries.select(1, 1), graph.entries.select(1, 0)}, graph.values);
  const Tensor coupling = y.matmul(basis), h_j = h.index_select(0, graph.neighbors);
  std::vector<Tensor> messages;
  for (int64_t k = 0; k < n_paths; k++) {
    const int64_t *p = table.data_ptr<int64_t>() + 7 * k;
    const int64_t channels = p[4], d1 = p[5], d3 = p[6];
    const Tensor m = coupling.narrow(1, p[3], d3 * d1).reshape({n_edges, d3, d1});
    const Tensor x = h_j.narrow(1, p[0], d1 * channels).reshape({n_edges, d1, channels});
    const Tensor r = w.narrow(1, p[2], channels).unsqueeze(1);
    messages.push_back((m.bmm(x) * r).reshape({n_edges, d3 * channels}));
  }
  const Tensor message = at::cat(messages, 1);
  return at::zeros({graph.n_centers, message.size(1)}, h.options()).index_add(0, graph.centers, message);
}

Tensor perceptron(Tensor x, at::TensorList weights)
{
  for (size_t l = 0; l < weights.size(); l++) x = (l > 0 ? at::silu(x) : x).matmul(weights[l]);
  return x;
}

/// Cubic Hermite interpolation between knots at x = 0, 1/(K−1), …, 1; zero beyond. Rows of a knot: value, slope · step
/// and, but for older files, rise to the next value. Of several tables, (P, K, 3, W), `which` (E,) says the one of each x.
Tensor interpolated(const Tensor &x, const Tensor &tables, const Tensor &which)
{
  const int64_t last = tables.size(-3) - 1;
  const Tensor knots = tables.dim() == 4 ? tables.flatten(0, 1) : tables;
  const Tensor place = x.clamp(0, 1) * last;
  const Tensor knot = place.detach().floor().clamp_max(last - 1).to(at::kLong);
  const Tensor t = (place - knot).unsqueeze(1), from = which.defined() ? knot + which * (last + 1) : knot;
  const Tensor a = knots.index_select(0, from), b = knots.index_select(0, from + 1);
  const Tensor rise = knots.size(1) == 3 ? a.select(1, 2) : b.select(1, 0) - a.select(1, 0);
  const Tensor w = a.select(1, 0) + t * t * (3 - 2 * t) * rise + t * (1 - t) * (1 - t) * a.select(1, 1) +
                   t * t * (t - 1) * b.select(1, 1);
  return at::where((x < 1).unsqueeze(1), w, at::zeros_like(w));
}

/// y[output …] += x[input …] W
Tensor mapped(const Tensor &x, at::TensorList weights, const Blocks &blocks)
{
  std::map<int64_t, Tensor> sums;
  for (const Term &term : blocks.terms) {
    const Tensor w = weights[term.matrix].narrow(0, term.row, term.channels);
    const Tensor block = x.narrow(1, term.input, term.components * w.size(0)).reshape({x.size(0) * term.components, w.size(0)});
    const Tensor y = block.matmul(w).reshape({x.size(0), term.components * w.size(1)});
    const auto [place, first] = sums.emplace(term.output, y);
    if (!first) place->second = place->second + y;
  }
  variable_list parts;
  int64_t end = 0;
  const auto fill = [&](int64_t to) {
    if (to > end) parts.push_back(at::zeros({x.size(0), to - end}, x.options()));
  };
  for (const auto &[offset, block] : sums) {
    fill(offset);
    parts.push_back(block);
    end = offset + block.size(1);
  }
  fill(blocks.width);
  return parts.empty() ? at::zeros({x.size(0), 0}, x.options()) : at::cat(parts, 1);
}

/// The matrix (channels, columns) that stands packed in `w` from `at` on.
Tensor unpacked(const Tensor &w, int64_t at, int64_t channels, int64_t columns)
{
  const int64_t strips = (columns + STRIP - 1) / STRIP;
  const Tensor panels = w.narrow(0, at, strips * channels * STRIP).reshape({strips, channels, STRIP});
  return panels.permute({1, 0, 2}).reshape({channels, strips * STRIP}).narrow(1, 0, columns);
}

/// The sum of the maps of one block's sources, (N, components · columns).
Tensor summed(const SumTarget &t, at::TensorList x, const Tensor &species, const Tensor &w)
{
  const int64_t n = x[0].size(0);
  Tensor sum = at::zeros({n, t.components * t.columns}, x[0].options());
  const auto map = [&](const Tensor &rows, const SumSource &s, int64_t matrix) {
    const Tensor block = rows.narrow(1, s.offset, t.components * s.channels).reshape({rows.size(0) * t.components, s.channels});
    return block.matmul(unpacked(w, matrix, s.channels, t.columns)).reshape({rows.size(0), t.components * t.columns});
  };
  for (const SumSource &s : t.sources) {
    if (s.species_stride == 0) {
      sum = sum + map(x[s.tensor], s, s.matrix);
      continue;
    }
    const Tensor present = std::get<0>(at::_unique(species)).cpu();
    for (int64_t k = 0; k < present.size(0); k++) {
      const int64_t z = present[k].item<int64_t>();
      const Tensor rows = (species == z).nonzero().squeeze(1);
      sum = sum.index_add(0, rows, map(x[s.tensor].index_select(0, rows), s, s.matrix + z * s.species_stride));
    }
  }
  return sum;
}

/// B_nk = Σ_m c_{z(n),m} x_{n,i1} x_{n,i2} x_{n,i3}, m = (k, i1, i2, i3)
Tensor contracted(const Tables &tables, const Tensor &x, const Tensor &c)
{
  const int64_t n = x.size(0), channels = c.size(2), n_in = x.size(1) / channels;
  const Tensor padded = at::cat({x.reshape({n, n_in, channels}), at::ones({n, 1, channels}, x.options())}, 1);
  Tensor value = c.index_select(0, tables.species);
  for (int64_t order = 1; order <= 3; order++) {
    const Tensor input = tables.monomials.select(1, order);
    value = value * padded.index_select(1, at::where(input < 0, n_in, input));
  }
  const Tensor zeros = at::zeros({n, tables.n_out, channels}, x.options());
  return zeros.index_add(1, tables.monomials.select(1, 0), value).view({n, tables.n_out * channels});
}

/// k − 1, 2 dk/ds and 4 d²k/ds² at squared distances s.
Three kernel_derivatives(bool gaussian, double sigma, const Tensor &s)
{
  const double square = sigma * sigma;
  if (gaussian) {
    const Tensor k = at::expm1(s * (-0.5 / square)), slope = (k + 1.0) * (-1.0 / square);
    return {k, slope, slope * (-1.0 / square)};
  }
  const Tensor u = at::sqrt(s * (5.0 / square)), decay = at::exp(-u), rise = u + u * u / 3.0;
  const Tensor slope = (u + 1.0) * decay * (-5.0 / (3.0 * square));
  return {rise + (1.0 + rise) * at::expm1(-u), slope, decay * (25.0 / (3.0 * square * square))};
}

}    // namespace

Tensor weights_of(const RadialInput &radial)
{
  return radial.kind == RadialInput::table ? interpolated(radial.x, radial.weights[0], radial.which)
                                           : perceptron(radial.x, radial.weights);
}

Tensor gated(const Tensor &x, const GatePlan &p)
{
  const int64_t n = x.size(0);
  const auto parts = x.split_with_sizes({p.n_even, p.n_odd, p.n_gates, p.n_gated}, 1);
  const Tensor gates = (p.sigmoid ? at::sigmoid(parts[2]) : at::silu(parts[2])) * p.gate;
  variable_list out{at::silu(parts[0]) * p.silu, at::tanh(parts[1]) * p.tanh};
  int64_t gate = 0, at = 0;
  for (size_t b = 0; b < p.blocks.size(); b += 2) {
    const int64_t components = p.blocks[b], channels = p.blocks[b + 1];
    const Tensor v = parts[3].narrow(1, at, components * channels).reshape({n, components, channels});
    out.push_back((v * gates.narrow(1, gate, channels).unsqueeze(1)).reshape({n, components * channels}));
    at += components * channels, gate += channels;
  }
  return at::cat(out, 1);
}

Two harmonics_of(const Tensor &vectors, int64_t l_max, bool solid)
{
  using namespace harmonic_factors;
  const Tensor r = vectors.square().sum(1).sqrt(), v = solid ? vectors : vectors / r.unsqueeze(1);
  const Tensor x = v.select(1, 0), y = v.select(1, 1), z = v.select(1, 2);
  const Tensor xz = x * x + z * z, yy = y * y, a = x * z, b = 0.5 * (z * z - x * x), f = 4.0 * yy - xz;
  variable_list found{at::ones_like(x)};
  if (l_max > 0) found.insert(found.end(), {S3 * x, S3 * y, S3 * z});
  if (l_max > 1) found.insert(found.end(), {S15 * a, S15 * x * y, S5 * (yy - 0.5 * xz), S15 * y * z, S15 * b});
  if (l_max > 2)
    found.insert(found.end(), {C33 * (a * z + b * x), S105 * a * y, C31 * f * x, 0.5 * S7 * y * (2.0 * yy - 3.0 * xz),
                               C31 * f * z, S105 * b * y, C33 * (b * z - a * x)});
  return {r, at::stack(found, 1)};
}

std::vector<Tensor> reference::linear_sums(at::TensorList x, const Tensor &species, at::TensorList weights,
                                           at::IntArrayRef numbers, at::IntArrayRef)
{
  const SumPlan plan = read_plan(numbers);
  check(plan, x, species, weights);
  std::vector<variable_list> parts(plan.widths.size());
  for (const SumTarget &t : plan.targets) parts[t.tensor].push_back(summed(t, x, species, weights[0]));
  std::vector<Tensor> out;
  for (const variable_list &blocks : parts)
    out.push_back(blocks.empty() ? at::zeros({x[0].size(0), 0}, x[0].options()) : at::cat(blocks, 1));
  return out;
}

Tensor reference::gate(const Tensor &x, at::IntArrayRef sizes, at::ArrayRef<double> factors)
{
  return gated(x, GatePlan(x, sizes, factors));
}

Tensor reference::gate_backward(const Tensor &g, const Tensor &x, at::IntArrayRef sizes, at::ArrayRef<double> factors)
{
  const GatePlan plan(x, sizes, factors);
  const Differentiation by({x});
  return by.gradients({gated(by[0], plan)}, {g})[0].detach();
}

Two reference::harmonics(const Tensor &vectors, int64_t l_max, bool solid)
{
  check_harmonics(vectors, l_max);
  return harmonics_of(vectors, l_max, solid);
}

Tensor reference::harmonics_backward(const Tensor &gr, const Tensor &gy, const Tensor &vectors, int64_t l_max, bool solid)
{
  check_harmonics(vectors, l_max);
  const Differentiation by({vectors});
  const auto [r, y] = harmonics_of(by[0], l_max, solid);
  return by.gradients({r, y}, {gr, gy})[0].detach();
}

Tensor reference::convolution(const Tensor &h, const Tensor &y, const Tensor &w, at::TensorList edges,
                              int64_t n_centers, at::TensorList tables)
{
  const Graph graph = Graph::of(edges, n_centers, tables);
  check(graph, h, y, {RadialInput::rows, w, {}, Tensor()});
  return convolved(graph, h, y, w);
}

Three reference::convolution_backward(const Tensor &g, const Tensor &h, const Tensor &y, const Tensor &w,
                                      at::TensorList edges, int64_t n_centers, at::TensorList tables, Wanted wanted)
{
  const Graph graph = Graph::of(edges, n_centers, tables);
  check(graph, h, y, {RadialInput::rows, w, {}, Tensor()});
  const Differentiation by({h, y, w});
  return chosen(by.gradients({convolved(graph, by[0], by[1], by[2])}, {g}), wanted);
}

Tensor reference::radial_convolution(const Tensor &h, const Tensor &y, at::TensorList radial, at::TensorList weights,
                                     at::TensorList edges, int64_t n_centers, at::TensorList tables)
{
  const Graph graph = Graph::of(edges, n_centers, tables);
  const RadialInput input = perceptron_input(radial, weights);
  check_perceptron(graph, h, y, radial[0], input);
  return convolved(graph, h, y, weights_of(input));
}

Three reference::radial_convolution_backward(const Tensor &g, const Tensor &h, const Tensor &y, at::TensorList radial,
                                             at::TensorList weights, at::TensorList edges, int64_t n_centers,
                                             at::TensorList tables, Wanted wanted)
{
  const Graph graph = Graph::of(edges, n_centers, tables);
  const RadialInput input = perceptron_input(radial, weights);
  check_perceptron(graph, h, y, radial[0], input);
  const Tensor basis = input.x.index_select(0, graph.row), slopes = input.slopes.index_select(0, graph.row);
  const Differentiation by({h, y, basis});    // the basis of every edge by itself
  auto d = by.gradients({convolved(graph.with_own_rows(), by[0], by[1], perceptron(by[2], weights))}, {g});
  d[2] = (d[2] * slopes).sum(1);
  return chosen(d, wanted);
}

Tensor reference::table_convolution(const Tensor &h, const Tensor &y, const Tensor &x, const Tensor &knots,
                                    at::TensorList edges, int64_t n_centers, at::TensorList tables)
{
  const Graph graph = Graph::of(edges, n_centers, tables);
  const RadialInput input = table_input(x, knots, graph);
  check(graph, h, y, input);
  return convolved(graph.with_own_rows(), h, y, weights_of(input));
}

Three reference::table_convolution_backward(const Tensor &g, const Tensor &h, const Tensor &y, const Tensor &x,
                                            const Tensor &knots, at::TensorList edges, int64_t n_centers,
                                            at::TensorList tables, Wanted wanted)
{
  const Graph graph = Graph::of(edges, n_centers, tables);
  check(graph, h, y, table_input(x, knots, graph));
  const Differentiation by({h, y, x});
  const Tensor w = interpolated(by[2], knots, graph.which);
  return chosen(by.gradients({convolved(graph.with_own_rows(), by[0], by[1], w)}, {g}), wanted);
}

Tensor reference::linear(const Tensor &x, at::TensorList weights, at::IntArrayRef terms, int64_t n_out)
{
  const Blocks blocks = read(terms, n_out);
  check(x, weights, blocks);
  return mapped(x, weights, blocks);
}

Tensor reference::symmetric_contraction(const Tensor &x, const Tensor &c, const Tensor &species,
                                        const Tensor &monomials, int64_t n_out)
{
  const Tables tables{species, monomials, n_out};
  check(tables, x, c);
  return contracted(tables, x, c);
}

Two reference::symmetric_contraction_backward(const Tensor &g, const Tensor &x, const Tensor &c, const Tensor &species,
                                              const Tensor &monomials, int64_t n_out, bool wanted)
{
  const Tables tables{species, monomials, n_out};
  check(tables, x, c);
  check_gradient(tables, g, x, c);
  const Differentiation by({x, c});
  const auto d = by.gradients({contracted(tables, by[0], by[1])}, {g});
  return {d[0], wanted ? d[1] : x.new_empty({0})};
}

Three reference::symmetric_contraction_double_backward(const std::optional<Tensor> &dx, const std::optional<Tensor> &dc,
                                                       const Tensor &g, const Tensor &x, const Tensor &c,
                                                       const Tensor &species, const Tensor &monomials, int64_t n_out,
                                                       bool wanted)
{
  const Tables tables{species, monomials, n_out};
  check(tables, x, c);
  check_gradient(tables, g, x, c);
  check_directions(dx, dc, x, c);
  const Differentiation by({g, x, c});
  const auto first = by.gradients({contracted(tables, by[1], by[2])}, {by[0]}, /*again=*/true);
  const auto d = by.gradients({first[1], first[2]}, {dx ? *dx : at::zeros_like(x), dc ? *dc : at::zeros_like(c)});
  return chosen(d, {true, true, wanted});
}

Two reference::kernel_sum(const Tensor &q, const Tensor &packed, const Tensor &values, std::string kernel, double sigma)
{
  check_kernel_sum(q, packed, values, kernel, sigma);
  const Tensor rows = packed.permute({2, 0, 3, 1}).reshape({packed.size(2), -1, q.size(1)}), points = rows[0];
  const Tensor squares = points.square().sum(1);
  variable_list energies, gradients;
  // kernel values of this number stay in a core's cache
  for (const Tensor &part : q.split(std::max<int64_t>(1, 40'000 / std::max<int64_t>(1, points.size(0))))) {
    const Tensor s = part.square().sum(1, true) + squares - 2.0 * part.mm(points.t());
    const auto [k, slope, curvature] = kernel_derivatives(kernel == "gaussian", sigma, s.clamp_min(0.0));
    Tensor energy = at::zeros({part.size(0)}, part.options()), along = at::zeros_like(s), pull = at::zeros_like(part);
    if (rows.size(0) > 1) {
      const Tensor t = (points * rows[1]).sum(1) - part.mm(rows[1].t());
      energy = energy + (slope * t).sum(1);
      along = curvature * t;
      pull = slope.mm(rows[1]);
    }
    if (values.size(0) > 0) {
      energy = energy + k.mv(values);
      along = along + slope * values;
    }
    energies.push_back(energy);
    gradients.push_back(part * along.sum(1, true) - along.mm(points) - pull);
  }
  return {at::cat(energies), at::cat(gradients)};
}

Three reference::molecular_kernel(const Tensor &positions, at::TensorList tables, std::string kernel, double sigma)
{
  check_molecules(positions, tables);
  const Tensor &scale = tables[0], &shift = tables[1], &pairs = tables[2];
  const int64_t n = positions.size(1), n_systems = positions.size(0), copies = pairs.size(0);
  const auto ends = at::triu_indices(n, n, 1, positions.options().dtype(at::kLong)).unbind(0);
  const Tensor vectors = positions.index_select(1, ends[1]) - positions.index_select(1, ends[0]);    // (S, P, 3)
  const Tensor r = vectors.square().sum(2).sqrt(), x = scale / r, order = pairs.reshape(-1);
  const Tensor q = (x - shift).index_select(1, order).reshape({n_systems * copies, x.size(1)});
  const auto [energy, slopes] = reference::kernel_sum(q, tables[3], tables[4], kernel, sigma);
  const Tensor back = at::zeros_like(x).index_add(1, order, slopes.reshape({n_systems, order.size(0)}));
  const Tensor pull = (back * x / r.square()).unsqueeze(2) * vectors;
  const Tensor gradient = at::zeros_like(positions).index_add(1, ends[0], pull).index_add(1, ends[1], -pull);
  const Tensor farthest = at::cat({r.reshape(-1), at::zeros({1}, r.options())}).max();
  return {energy.reshape({n_systems, copies}).sum(1), gradient, farthest.reshape({1})};
}

}    // namespace mlplugins
