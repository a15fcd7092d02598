// SPDX-License-Identifier: BSD-3-Clause
// Ops mlplugins::radial_convolution and mlplugins::table_convolution: the convolution with its radial weights made
// inside the kernel, block by block, so that no (edges × weights) tensor exists. Where gradients of the weights'
// own parameters or second derivatives are asked for, the weights are made first and mlplugins::convolution is used.

#include "convolution.h"

#include <ATen/core/dispatch/Dispatcher.h>
#include <torch/csrc/autograd/autograd.h>
#include <torch/csrc/autograd/custom_function.h>
#include <torch/library.h>

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

class RadialConvolution : public torch::autograd::Function<RadialConvolution> {
 public:
  static Tensor forward(AutogradContext *context, const Tensor &h, const Tensor &y, const Tensor &x,
                        at::TensorList weights, bool table, const Graph &graph)
  {
    variable_list saved{h, y, x, graph.centers, graph.neighbors, graph.paths, graph.entries, graph.values};
    saved.insert(saved.end(), weights.begin(), weights.end());
    context->save_for_backward(saved);
    context->saved_data["n_centers"] = graph.n_centers;
    context->saved_data["table"] = table;
    return convolve(graph, h, y, {table ? RadialInput::table : RadialInput::perceptron, x, weights.vec()});
  }

  static variable_list backward(AutogradContext *context, variable_list g)
  {
    const auto s = context->get_saved_variables();
    const Graph graph{s[3], s[4], context->saved_data["n_centers"].toInt(), s[5], s[6], s[7]};
    const RadialInput radial{context->saved_data["table"].toBool() ? RadialInput::table : RadialInput::perceptron, s[2],
                             variable_list(s.begin() + 8, s.end())};
    variable_list d;
    if (at::GradMode::is_enabled()) {
      d = differentiable(graph, g[0], s[0], s[1], radial);
    } else {
      d = convolve_backward(graph, g[0], s[0], s[1], radial,
                            {context->needs_input_grad(0), context->needs_input_grad(1), context->needs_input_grad(2)});
    }
    d.resize(3 + radial.weights.size() + 2);
    return d;
  }

 private:
  /// Gradients with a graph of their own.
  static variable_list differentiable(const Graph &graph, const Tensor &g, const Tensor &h, const Tensor &y,
                                      const RadialInput &radial)
  {
    const Tensor w = weights_of(radial);
    variable_list d = convolution_backward(graph, g, h, y, w);
    if (radial.x.requires_grad())
      d[2] = torch::autograd::grad({w}, {radial.x}, {d[2]}, /*retain_graph=*/true, /*create_graph=*/true)[0];
    else
      d[2] = Tensor();
    return d;
  }
};

Tensor convolution_with(const Tensor &h, const Tensor &y, const RadialInput &radial, const Graph &graph)
{
  check(graph, h, y, radial);
  bool composed = !h.is_cpu();
  if (at::GradMode::is_enabled())
    for (const Tensor &matrix : radial.weights) composed |= matrix.requires_grad();
  if (composed) return convolution(h, y, weights_of(radial), graph);
  return RadialConvolution::apply(h, y, radial.x, at::TensorList(radial.weights), radial.kind == RadialInput::table,
                                  graph);
}

Tensor radial_convolution(const Tensor &h, const Tensor &y, const Tensor &basis, at::TensorList weights,
                          at::TensorList edges, int64_t n_centers, at::TensorList tables)
{
  return convolution_with(h, y, {RadialInput::perceptron, basis, weights.vec()}, Graph::of(edges, n_centers, tables));
}

Tensor table_convolution(const Tensor &h, const Tensor &y, const Tensor &x, const Tensor &knots, at::TensorList edges,
                         int64_t n_centers, at::TensorList tables)
{
  return convolution_with(h, y, {RadialInput::table, x, {knots}}, Graph::of(edges, n_centers, tables));
}

/// Define the ops unless this process has them already: a second definition would end the process.
bool define()
{
  if (c10::Dispatcher::singleton().findSchema({"mlplugins::radial_convolution", ""})) return false;
  static torch::Library library(torch::Library::FRAGMENT, "mlplugins", std::nullopt, __FILE__, __LINE__);
  library.def("radial_convolution(Tensor h, Tensor y, Tensor basis, Tensor[] weights, Tensor[] edges, int n_centers, "
              "Tensor[] tables) -> Tensor");
  library.def("table_convolution(Tensor h, Tensor y, Tensor x, Tensor knots, Tensor[] edges, int n_centers, "
              "Tensor[] tables) -> Tensor");
  const auto key = c10::DispatchKey::CompositeImplicitAutograd;
  library.impl("radial_convolution", torch::dispatch(key, TORCH_FN(radial_convolution)));
  library.impl("table_convolution", torch::dispatch(key, TORCH_FN(table_convolution)));
  return true;
}

[[maybe_unused]] const bool defined = define();

}    // namespace
}    // namespace mlplugins
