// SPDX-License-Identifier: BSD-3-Clause
// Op mlplugins::convolution: gather – uvu tensor product with per-edge weights – sum over the neighbours.
// It is linear in h, y and w, so every derivative, of any order, is made of the same two passes.

#include "convolution.h"
#include "ops.h"

#include <torch/csrc/autograd/custom_function.h>

namespace mlplugins {
namespace {

using at::Tensor;
using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

void save(AutogradContext *context, const Graph &graph, variable_list tensors)
{
  tensors.insert(tensors.end(),
                 {graph.centers, graph.neighbors, graph.paths, graph.entries, graph.values, graph.row});
  context->save_for_backward(tensors);
  context->saved_data["n_centers"] = graph.n_centers;
}

Graph saved_graph(AutogradContext *context, const variable_list &saved, size_t first)
{
  return {saved[first],     saved[first + 1], context->saved_data["n_centers"].toInt(), saved[first + 2],
          saved[first + 3], saved[first + 4], saved[first + 5]};
}

variable_list backward_of(const Graph &, const Tensor &g, const Tensor &h, const Tensor &y, const Tensor &w);
Tensor forward_of(const Graph &, const Tensor &h, const Tensor &y, const Tensor &w);

Tensor sum(const Tensor &a, const Tensor &b)
{
  if (!a.defined()) return b;
  return b.defined() ? a + b : a;
}

/// (g, h, y, w) → gradients of ⟨g, m⟩ with respect to h, y, w.
class ConvolutionBackward : public torch::autograd::Function<ConvolutionBackward> {
 public:
  static variable_list forward(AutogradContext *context, const Tensor &g, const Tensor &h, const Tensor &y,
                               const Tensor &w, const Graph &graph)
  {
    context->set_materialize_grads(false);
    save(context, graph, {g, h, y, w});
    return convolve_backward(graph, g, h, y, {RadialInput::rows, w}, {true, true, true});
  }

  /// Φ = ⟨g, m(h, y, w)⟩ is linear in each argument, so the gradient of ⟨(a, b, c), ∂Φ/∂(h, y, w)⟩ is the gradient
  /// of Φ(g, a, y, w) + Φ(g, h, b, w) + Φ(g, h, y, c).
  static variable_list backward(AutogradContext *context, variable_list v)
  {
    const auto saved = context->get_saved_variables();
    const Tensor &g = saved[0], &h = saved[1], &y = saved[2], &w = saved[3];
    const Graph graph = saved_graph(context, saved, 4);
    const bool recorded = at::GradMode::is_enabled();
    const std::array<bool, 4> needs{recorded || context->needs_input_grad(0), recorded || context->needs_input_grad(1),
                                    recorded || context->needs_input_grad(2), recorded || context->needs_input_grad(3)};
    Tensor gg, gd[3];
    for (int k = 0; k < 3; k++) {    // the k-th of h, y, w gives way to its direction
      if (!v[k].defined()) continue;
      const Tensor &hk = k == 0 ? v[0] : h, &yk = k == 1 ? v[1] : y, &wk = k == 2 ? v[2] : w;
      const RadialInput rows{RadialInput::rows, wk};
      if (needs[0]) gg = sum(gg, recorded ? forward_of(graph, hk, yk, wk) : convolve(graph, hk, yk, rows));
      const std::array<bool, 3> wanted{k != 0 && needs[1], k != 1 && needs[2], k != 2 && needs[3]};
      if (!wanted[0] && !wanted[1] && !wanted[2]) continue;
      const auto d = recorded ? backward_of(graph, g, hk, yk, wk) : convolve_backward(graph, g, hk, yk, rows, wanted);
      for (int m = 0; m < 3; m++)
        if (wanted[m]) gd[m] = sum(gd[m], d[m]);
    }
    const Tensor none;
    return {gg, gd[0], gd[1], gd[2], none};
  }
};

class ConvolutionForward : public torch::autograd::Function<ConvolutionForward> {
 public:
  static Tensor forward(AutogradContext *context, const Tensor &h, const Tensor &y, const Tensor &w,
                        const Graph &graph)
  {
    save(context, graph, {h, y, w});
    return convolve(graph, h, y, {RadialInput::rows, w});
  }

  static variable_list backward(AutogradContext *context, variable_list g)
  {
    const auto saved = context->get_saved_variables();
    const Graph graph = saved_graph(context, saved, 3);
    const Tensor &h = saved[0], &y = saved[1], &w = saved[2];
    variable_list d;
    if (at::GradMode::is_enabled()) {
      d = backward_of(graph, g[0], h, y, w);
    } else {
      const std::array<bool, 3> wanted{context->needs_input_grad(0), context->needs_input_grad(1),
                                       context->needs_input_grad(2)};
      d = convolve_backward(graph, g[0], h, y, {RadialInput::rows, w}, wanted);
    }
    const Tensor none;
    return {d[0], d[1], d[2], none};
  }
};

variable_list backward_of(const Graph &q, const Tensor &g, const Tensor &h, const Tensor &y, const Tensor &w)
{
  return ConvolutionBackward::apply(g, h, y, w, q);
}

Tensor forward_of(const Graph &q, const Tensor &h, const Tensor &y, const Tensor &w)
{
  return ConvolutionForward::apply(h, y, w, q);
}

/// The same in ATen's own operations, for devices that the kernels do not know.
Tensor composed(const Graph &graph, const Tensor &h, const Tensor &y, const Tensor &weights)
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

}    // namespace

Tensor convolution(const Tensor &h, const Tensor &y, const Tensor &w, const Graph &graph)
{
  check(graph, h, y, {RadialInput::rows, w});
  return h.is_cpu() ? forward_of(graph, h, y, w) : composed(graph, h, y, w);
}

variable_list convolution_backward(const Graph &graph, const Tensor &g, const Tensor &h, const Tensor &y,
                                   const Tensor &w)
{
  return backward_of(graph, g, h, y, w);
}

Tensor convolution_op(const Tensor &h, const Tensor &y, const Tensor &w, at::TensorList edges, int64_t n_centers,
                      at::TensorList tables)
{
  return convolution(h, y, w, Graph::of(edges, n_centers, tables));
}

}    // namespace mlplugins
