// SPDX-License-Identifier: BSD-3-Clause
// Ops mlplugins::radial_convolution and mlplugins::table_convolution: the convolution with its radial weights made
// inside the kernel, block by block, so that no (edges × weights) tensor exists. The weights depend on the distance
// alone: the kernel makes their slopes beside them, so that the gradient of an edge's distance is one product, and
// i → j and j → i share both. Where gradients of the weights' own parameters or second derivatives are asked for, the
// weights are made first and mlplugins::convolution is used.

#include "convolution.h"
#include "ops.h"

#include <torch/csrc/autograd/autograd.h>
#include <torch/csrc/autograd/custom_function.h>

namespace mlplugins {
namespace {

using at::Tensor;
using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

Tensor perceptron(Tensor x, at::TensorList weights)
{
  for (size_t l = 0; l < weights.size(); l++) x = (l > 0 ? at::silu(x) : x).matmul(weights[l]);
  return x;
}

/// Cubic Hermite interpolation between knots at x = 0, 1/(K−1), …, 1; zero beyond.
Tensor interpolated(const Tensor &x, const Tensor &knots)
{
  const int64_t last = knots.size(0) - 1;
  const Tensor place = x.clamp(0, 1) * last;
  const Tensor knot = place.detach().floor().clamp_max(last - 1).to(at::kLong);
  const Tensor t = (place - knot).unsqueeze(1);
  const Tensor a = knots.index_select(0, knot), b = knots.index_select(0, knot + 1);
  const Tensor rise = t * t * (3 - 2 * t);
  const Tensor w = (1 - rise) * a.select(1, 0) + rise * b.select(1, 0) + t * (1 - t) * (1 - t) * a.select(1, 1) +
                   t * t * (t - 1) * b.select(1, 1);
  return at::where((x < 1).unsqueeze(1), w, at::zeros_like(w));
}

Tensor weights_of(const RadialInput &radial)
{
  return radial.kind == RadialInput::table ? interpolated(radial.x, radial.weights[0])
                                           : perceptron(radial.x, radial.weights);
}

/// The edges as the weights see them: a table's are functions of every edge's own x.
Graph graph_of(const RadialInput &radial, Graph graph)
{
  if (radial.kind == RadialInput::table) graph.row = Tensor();
  return graph;
}

class RadialConvolution : public torch::autograd::Function<RadialConvolution> {
 public:
  /// `distance` is r (perceptron) or radial.x (table): what first derivatives are taken with respect to. `source` is
  /// radial.x: what second derivatives go through.
  static Tensor forward(AutogradContext *context, const Tensor &h, const Tensor &y, const Tensor &distance,
                        const Tensor &source, const RadialInput &radial, const Graph &graph)
  {
    variable_list saved{h,           y,           source,        radial.slopes, graph.centers, graph.neighbors,
                        graph.paths, graph.entries, graph.values, graph.row};
    saved.insert(saved.end(), radial.weights.begin(), radial.weights.end());
    context->save_for_backward(saved);
    context->saved_data["n_centers"] = graph.n_centers;
    context->saved_data["table"] = radial.kind == RadialInput::table;
    return convolve(graph, h, y, radial);
  }

  static variable_list backward(AutogradContext *context, variable_list g)
  {
    const auto s = context->get_saved_variables();
    const Graph graph{s[4], s[5], context->saved_data["n_centers"].toInt(), s[6], s[7], s[8], s[9]};
    const RadialInput radial{context->saved_data["table"].toBool() ? RadialInput::table : RadialInput::perceptron, s[2],
                             variable_list(s.begin() + 10, s.end()), s[3]};
    const Tensor none;
    if (at::GradMode::is_enabled()) {
      const auto d = differentiable(graph, g[0], s[0], s[1], radial);
      return {d[0], d[1], none, d[2], none, none};
    }
    const auto d =
        convolve_backward(graph, g[0], s[0], s[1], radial,
                          {context->needs_input_grad(0), context->needs_input_grad(1), context->needs_input_grad(2)});
    return {d[0], d[1], d[2], none, none, none};
  }

 private:
  /// Gradients with a graph of their own; the last one is that of radial.x.
  static variable_list differentiable(const Graph &graph, const Tensor &g, const Tensor &h, const Tensor &y,
                                      const RadialInput &radial)
  {
    const Tensor w = weights_of(radial);
    variable_list d = convolution_backward(graph_of(radial, graph), g, h, y, w);
    if (radial.x.requires_grad())
      d[2] = torch::autograd::grad({w}, {radial.x}, {d[2]}, /*retain_graph=*/true, /*create_graph=*/true)[0];
    else
      d[2] = Tensor();
    return d;
  }
};

Tensor convolution_with(const Tensor &h, const Tensor &y, const Tensor &distance, const RadialInput &radial,
                        const Graph &graph)
{
  check(graph, h, y, radial);
  bool composed = !h.is_cpu();
  if (at::GradMode::is_enabled())
    for (const Tensor &matrix : radial.weights) composed |= matrix.requires_grad();
  if (composed) return convolution(h, y, weights_of(radial), graph_of(radial, graph));
  return RadialConvolution::apply(h, y, distance, radial.x, radial, graph);
}

}    // namespace

Tensor radial_convolution(const Tensor &h, const Tensor &y, at::TensorList radial, at::TensorList weights,
                          at::TensorList edges, int64_t n_centers, at::TensorList tables)
{
  TORCH_CHECK(radial.size() == 3, "convolution: expected the distances, the basis and its slopes, got ", radial.size(),
              " tensors");
  const Graph graph = Graph::of(edges, n_centers, tables);
  const Tensor &r = radial[0];
  TORCH_CHECK(graph.row.defined(), "convolution: expected (centers, neighbors, row of the basis)");
  TORCH_CHECK(r.layout() == at::kStrided && r.sizes() == graph.row.sizes() && r.scalar_type() == h.scalar_type() &&
                  r.device() == h.device(),
              "convolution: expected one distance per edge, of the dtype and device of h");
  return convolution_with(h, y, r, {RadialInput::perceptron, radial[1], weights.vec(), radial[2]}, graph);
}

Tensor table_convolution(const Tensor &h, const Tensor &y, const Tensor &x, const Tensor &knots, at::TensorList edges,
                         int64_t n_centers, at::TensorList tables)
{
  return convolution_with(h, y, x, {RadialInput::table, x, {knots}}, Graph::of(edges, n_centers, tables));
}

}    // namespace mlplugins
