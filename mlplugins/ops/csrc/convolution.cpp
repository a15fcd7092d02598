// SPDX-License-Identifier: BSD-3-Clause
// Derivatives of mlplugins::convolution: gather – uvu tensor product with per-edge weights – sum over the neighbours.
// It is linear in h, y and w, so every derivative, of any order, is made of the same two passes.

#include "convolution.h"
#include "message_moments.h"
#include "ops.h"

#include <torch/csrc/autograd/custom_function.h>

namespace mlplugins {
namespace {

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

Tensor forward_of(const Graph &graph, const Tensor &h, const Tensor &y, const Tensor &w)
{
  static const auto op = dispatched<decltype(cpu::convolution)>("convolution");
  return op.call(h, y, w, graph.edges(), graph.n_centers, graph.tables());
}

Three backward_of(const Graph &graph, const Tensor &g, const Tensor &h, const Tensor &y, const Tensor &w, Wanted wanted)
{
  static const auto op = dispatched<decltype(cpu::convolution_backward)>("convolution_backward");
  return op.call(g, h, y, w, graph.edges(), graph.n_centers, graph.tables(), wanted);
}

Tensor sum(const Tensor &a, const Tensor &b)
{
  if (!a.defined()) return b;
  return b.defined() ? a + b : a;
}

/// (g, h, y, w) → gradients of ⟨g, m⟩ with respect to h, y, w.
class ConvolutionBackward : public torch::autograd::Function<ConvolutionBackward> {
 public:
  static variable_list forward(AutogradContext *context, const Tensor &g, const Tensor &h, const Tensor &y,
                               const Tensor &w, const Graph &graph, Wanted wanted)
  {
    context->set_materialize_grads(false);
    save(context, graph, {g, h, y, w});
    context->saved_data["wanted"] = c10::List<bool>({wanted[0], wanted[1], wanted[2]});
    at::AutoDispatchBelowADInplaceOrView guard;
    return list(backward_of(graph, g, h, y, w, wanted));
  }

  /// Φ = ⟨g, m(h, y, w)⟩ is linear in each argument, so the gradient of ⟨(a, b, c), ∂Φ/∂(h, y, w)⟩ is the gradient
  /// of Φ(g, a, y, w) + Φ(g, h, b, w) + Φ(g, h, y, c).
  static variable_list backward(AutogradContext *context, variable_list v)
  {
    const auto saved = context->get_saved_variables();
    const Tensor &g = saved[0], &h = saved[1], &y = saved[2], &w = saved[3];
    const Graph graph = saved_graph(context, saved, 4);
    const std::array<bool, 4> needs{context->needs_input_grad(0), context->needs_input_grad(1),
                                    context->needs_input_grad(2), context->needs_input_grad(3)};
    const auto given = context->saved_data["wanted"].toBoolList();    // the others are empty, and so are their directions
    Tensor gg, gd[3];
    for (int k = 0; k < 3; k++) {    // the k-th of h, y, w gives way to its direction
      if (!v[k].defined() || !given[k]) continue;
      const Tensor &hk = k == 0 ? v[0] : h, &yk = k == 1 ? v[1] : y, &wk = k == 2 ? v[2] : w;
      if (needs[0]) gg = sum(gg, forward_of(graph, hk, yk, wk));
      const Wanted wanted{k != 0 && needs[1], k != 1 && needs[2], k != 2 && needs[3]};
      if (!wanted[0] && !wanted[1] && !wanted[2]) continue;
      const auto d = list(backward_of(graph, g, hk, yk, wk, wanted));
      for (int m = 0; m < 3; m++)
        if (wanted[m]) gd[m] = sum(gd[m], d[m]);
    }
    const Tensor none;
    return {gg, gd[0], gd[1], gd[2], none, none};
  }
};

class ConvolutionForward : public torch::autograd::Function<ConvolutionForward> {
 public:
  static Tensor forward(AutogradContext *context, const Tensor &h, const Tensor &y, const Tensor &w,
                        const Graph &graph, const Noted &noted)
  {
    save(context, graph, {h, y, w});
    context->saved_data["record"] = noted.record;
    context->saved_data["place"] = noted.place;
    at::AutoDispatchBelowADInplaceOrView guard;
    return forward_of(graph, h, y, w);
  }

  static variable_list backward(AutogradContext *context, variable_list g)
  {
    const auto saved = context->get_saved_variables();
    const Graph graph = saved_graph(context, saved, 3);
    const Wanted wanted{context->needs_input_grad(0), context->needs_input_grad(1), context->needs_input_grad(2)};
    Sent *sent = open_note({context->saved_data["record"].toInt(), context->saved_data["place"].toInt()});
    auto d = sent && !at::GradMode::is_enabled() && wanted[0]
        ? noting(*sent, graph, g[0], saved[0], saved[1], {RadialInput::rows, saved[2], {}, Tensor()}, wanted)
        : list(backward_of(graph, g[0], saved[0], saved[1], saved[2], wanted));
    const Tensor none;
    for (int k = 0; k < 3; k++)
      if (!wanted[k]) d[k] = none;
    return {d[0], d[1], d[2], none, none};
  }
};

}    // namespace

Tensor autograd::convolution(const Tensor &h, const Tensor &y, const Tensor &w, at::TensorList edges,
                             int64_t n_centers, at::TensorList tables)
{
  const Graph graph = Graph::of(edges, n_centers, tables);
  return ConvolutionForward::apply(h, y, w, graph, read_by_convolution(h, graph));
}

Three autograd::convolution_backward(const Tensor &g, const Tensor &h, const Tensor &y, const Tensor &w,
                                     at::TensorList edges, int64_t n_centers, at::TensorList tables, Wanted wanted)
{
  const auto d = ConvolutionBackward::apply(g, h, y, w, Graph::of(edges, n_centers, tables), wanted);
  return {d[0], d[1], d[2]};
}

}    // namespace mlplugins
