// SPDX-License-Identifier: BSD-3-Clause
// Derivatives of mlplugins::radial_convolution and mlplugins::table_convolution: the convolution with its radial
// weights made inside the kernel, block by block, so that no (edges × weights) tensor exists. The weights depend on
// the distance alone: the kernel makes their slopes beside them, so that the gradient of an edge's distance is one
// product, and i → j and j → i share both. Where gradients of the weights' own parameters or second derivatives are
// asked for, the weights are made first and mlplugins::convolution is used.

#include "convolution.h"
#include "message_moments.h"
#include "ops.h"

#include <torch/csrc/autograd/autograd.h>
#include <torch/csrc/autograd/custom_function.h>

namespace mlplugins {
namespace {

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

/// The edges as the weights see them: a table's are functions of every edge's own x.
Graph graph_of(const RadialInput &radial, const Graph &graph)
{
  return radial.kind == RadialInput::table ? graph.with_own_rows() : graph;
}

/// The op, beneath autograd or above; `distance` is r (perceptron) or x (table).
Tensor radial_forward(const Graph &q, const Tensor &h, const Tensor &y, const Tensor &distance, const RadialInput &radial)
{
  static const auto network = dispatched<decltype(cpu::radial_convolution)>("radial_convolution");
  static const auto table = dispatched<decltype(cpu::table_convolution)>("table_convolution");
  if (radial.kind == RadialInput::table)
    return table.call(h, y, distance, radial.weights[0], q.edges(), q.n_centers, q.tables());
  return network.call(h, y, variable_list{distance, radial.x, radial.slopes}, radial.weights, q.edges(), q.n_centers,
                      q.tables());
}

Three radial_backward(const Graph &q, const Tensor &g, const Tensor &h, const Tensor &y, const Tensor &distance,
                      const RadialInput &radial, Wanted wanted)
{
  static const auto network = dispatched<decltype(cpu::radial_convolution_backward)>("radial_convolution_backward");
  static const auto table = dispatched<decltype(cpu::table_convolution_backward)>("table_convolution_backward");
  if (radial.kind == RadialInput::table)
    return table.call(g, h, y, distance, radial.weights[0], q.edges(), q.n_centers, q.tables(), wanted);
  return network.call(g, h, y, variable_list{distance, radial.x, radial.slopes}, radial.weights, q.edges(),
                      q.n_centers, q.tables(), wanted);
}

class RadialConvolution : public torch::autograd::Function<RadialConvolution> {
 public:
  /// `distance` is r (perceptron) or radial.x (table): what first derivatives are taken with respect to. `source` is
  /// radial.x: what second derivatives go through.
  static Tensor forward(AutogradContext *context, const Tensor &h, const Tensor &y, const Tensor &distance,
                        const Tensor &source, const RadialInput &radial, const Graph &graph, const Noted &noted)
  {
    context->saved_data["record"] = noted.record;
    context->saved_data["place"] = noted.place;
    variable_list saved{h,           y,           distance,      source,       radial.slopes, graph.centers,
                        graph.neighbors, graph.paths, graph.entries, graph.values, graph.row, graph.which};
    saved.insert(saved.end(), radial.weights.begin(), radial.weights.end());
    context->save_for_backward(saved);
    context->saved_data["n_centers"] = graph.n_centers;
    context->saved_data["table"] = radial.kind == RadialInput::table;
    at::AutoDispatchBelowADInplaceOrView guard;
    return radial_forward(graph, h, y, distance, radial);
  }

  static variable_list backward(AutogradContext *context, variable_list g)
  {
    const auto s = context->get_saved_variables();
    const Graph graph{s[5], s[6], context->saved_data["n_centers"].toInt(), s[7], s[8], s[9], s[10], s[11]};
    const RadialInput radial{context->saved_data["table"].toBool() ? RadialInput::table : RadialInput::perceptron, s[3],
                             variable_list(s.begin() + 12, s.end()), s[4], s[11]};
    const Tensor none;
    const bool recorded = at::GradMode::is_enabled();
    const Wanted wanted{context->needs_input_grad(0), context->needs_input_grad(1),
                        context->needs_input_grad(recorded ? 3 : 2)};
    Sent *sent = open_note({context->saved_data["record"].toInt(), context->saved_data["place"].toInt()});
    variable_list d;
    if (recorded)
      d = differentiable(graph, g[0], s[0], s[1], radial, wanted);
    else if (sent && wanted[0])
      d = noting(*sent, graph, g[0], s[0], s[1], radial, wanted);
    else
      d = list(radial_backward(graph, g[0], s[0], s[1], s[2], radial, wanted));
    for (int k = 0; k < 3; k++)
      if (!wanted[k]) d[k] = none;
    if (recorded) return {d[0], d[1], none, d[2], none, none, none};
    return {d[0], d[1], d[2], none, none, none, none};
  }

 private:
  /// Gradients with a graph of their own; the last one is that of radial.x.
  static variable_list differentiable(const Graph &graph, const Tensor &g, const Tensor &h, const Tensor &y,
                                      const RadialInput &radial, Wanted wanted)
  {
    static const auto op = dispatched<decltype(cpu::convolution_backward)>("convolution_backward");
    const Graph q = graph_of(radial, graph);
    const Tensor w = weights_of(radial);
    auto d = list(op.call(g, h, y, w, q.edges(), q.n_centers, q.tables(), wanted));
    if (wanted[2] && radial.x.requires_grad())
      d[2] = torch::autograd::grad({w}, {radial.x}, {d[2]}, /*retain_graph=*/true, /*create_graph=*/true)[0];
    else
      d[2] = Tensor();
    return d;
  }
};

Tensor convolution_with(const Graph &graph, const Tensor &h, const Tensor &y, const Tensor &distance,
                        const RadialInput &radial)
{
  bool made_first = false;
  if (at::GradMode::is_enabled())
    for (const Tensor &matrix : radial.weights) made_first |= matrix.requires_grad();
  if (!made_first)
    return RadialConvolution::apply(h, y, distance, radial.x, radial, graph, read_by_convolution(h, graph));
  static const auto op = dispatched<decltype(cpu::convolution)>("convolution");
  check(graph, h, y, radial);
  const Graph q = graph_of(radial, graph);
  return op.call(h, y, weights_of(radial), q.edges(), q.n_centers, q.tables());
}

variable_list concatenated(variable_list a, at::TensorList b)
{
  a.insert(a.end(), b.begin(), b.end());
  return a;
}

constexpr const char *SECOND = "convolution: second derivatives of weights made in the kernel";

}    // namespace

Tensor autograd::radial_convolution(const Tensor &h, const Tensor &y, at::TensorList radial, at::TensorList weights,
                                    at::TensorList edges, int64_t n_centers, at::TensorList tables)
{
  const RadialInput input = perceptron_input(radial, weights);
  return convolution_with(Graph::of(edges, n_centers, tables), h, y, radial[0], input);
}

Tensor autograd::table_convolution(const Tensor &h, const Tensor &y, const Tensor &x, const Tensor &knots,
                                   at::TensorList edges, int64_t n_centers, at::TensorList tables)
{
  const Graph graph = Graph::of(edges, n_centers, tables);
  return convolution_with(graph, h, y, x, table_input(x, knots, graph));
}

Three autograd::radial_convolution_backward(const Tensor &g, const Tensor &h, const Tensor &y, at::TensorList radial,
                                            at::TensorList weights, at::TensorList edges, int64_t n_centers,
                                            at::TensorList tables, Wanted wanted)
{
  const RadialInput input = perceptron_input(radial, weights);
  const Graph graph = Graph::of(edges, n_centers, tables);
  const auto d = without_derivatives(concatenated(concatenated({g, h, y}, radial), weights), SECOND, [&] {
    return list(radial_backward(graph, g, h, y, radial[0], input, wanted));
  });
  return {d[0], d[1], d[2]};
}

Three autograd::table_convolution_backward(const Tensor &g, const Tensor &h, const Tensor &y, const Tensor &x,
                                           const Tensor &knots, at::TensorList edges, int64_t n_centers,
                                           at::TensorList tables, Wanted wanted)
{
  const Graph graph = Graph::of(edges, n_centers, tables);
  const RadialInput input = table_input(x, knots, graph);
  const auto d = without_derivatives(variable_list{g, h, y, x, knots}, SECOND,
                                     [&] { return list(radial_backward(graph, g, h, y, x, input, wanted)); });
  return {d[0], d[1], d[2]};
}

}    // namespace mlplugins
