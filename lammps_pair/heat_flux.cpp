// SPDX-License-Identifier: GPL-2.0-only
// The heat flux of models whose energy depends on the vectors of their edges; the derivation is in
// mlplugins/model_file/heat_flux.py and docs/theory/heat-flux.md.

#include "evaluator_state.h"
#include "format.h"

#include <ATen/core/dispatch/Dispatcher.h>
#include <torch/csrc/autograd/autograd.h>
#include <torch/csrc/jit/runtime/graph_executor.h>

#include <algorithm>
#include <stdexcept>

namespace mlplugins {

namespace {

torch::Tensor doubles(const std::vector<double> &values, int64_t rows)
{
  return torch::from_blob(const_cast<double *>(values.data()), {rows, 3}, torch::kDouble);
}

/// While it lives, the exchange gives every edge a row of its own.
class MessageCopies {
 public:
  MessageCopies(const torch::Tensor &sources, int64_t n_nodes) { op().call(sources, n_nodes); }
  ~MessageCopies() { op().call(std::nullopt, 0); }
  /// What was sent along the edges, by each layer: (E, D).
  static std::vector<torch::Tensor> taken() { return op().call(std::nullopt, 0); }
  MessageCopies(const MessageCopies &) = delete;
  MessageCopies &operator=(const MessageCopies &) = delete;

 private:
  using Signature = std::vector<torch::Tensor>(const std::optional<torch::Tensor> &, int64_t);
  static const c10::TypedOperatorHandle<Signature> &op()
  {
    static const auto handle =
        c10::Dispatcher::singleton().findSchemaOrThrow("mlplugins::message_copies", "").typed<Signature>();
    return handle;
  }
};

void set_potential(Flux &flux, const torch::Tensor &j)
{
  const auto host = j.to(torch::kCPU, torch::kDouble).contiguous();
  std::copy_n(host.data_ptr<double>(), 3, flux.potential);
}

}    // namespace

/// One layer: J = - sum of x_e (G_e . v_n), with the gradients that forces come from.
Flux Evaluator::State::edge_flux(const Graph &graph, const Request &request, const std::vector<double> &velocities)
{
  edge_evaluation(graph, request);
  const auto n = static_cast<int64_t>(graph.n_edges);
  const auto x = doubles(graph.vectors, n);
  const auto samples = torch::from_blob(const_cast<int32_t *>(graph.samples.data()), {n, 5}, torch::kInt);
  const auto v = doubles(velocities, graph.n_nodes).index_select(0, samples.select(1, 1).to(torch::kLong));
  Flux flux;
  set_potential(flux, -(gradients * v).sum(1).matmul(x));
  flux_energies = energies.flatten() - baselines;
  flux.energies = flux_energies.data_ptr<double>();
  return flux;
}

/// Several layers: and the moments of the gradients, by one more backward pass for each component.
Flux Evaluator::State::message_flux(const Graph &graph, const Request &request, const std::vector<double> &velocities)
{
  const auto n = static_cast<int64_t>(graph.n_edges);
  const int64_t with_edges = request.all_centers ? graph.n_nodes : graph.n_centers;
  const auto x = doubles(graph.vectors, n).to(device);
  const auto ends = torch::from_blob(const_cast<int32_t *>(graph.samples.data()), {n, 5}, torch::kInt);
  const auto centers = ends.select(1, 0).to(device, torch::kLong), neighbors = ends.select(1, 1).to(device, torch::kLong);
  const auto vectors = to_model(x).requires_grad_(true);

  // the neighbour of every edge becomes a node of its own, behind those that have edges
  const auto nodes = torch::cat({torch::arange(with_edges, torch::kLong), ends.select(1, 1).to(torch::kLong)});
  const auto types = torch::from_blob(const_cast<int32_t *>(graph.types.data()), {graph.n_nodes}, torch::kInt);
  const auto positions = doubles(graph.positions, graph.n_nodes).index_select(0, nodes);
  const auto cell = torch::from_blob(const_cast<double *>(graph.cell), {3, 3}, torch::kDouble);
  const auto periodic = torch::from_blob(const_cast<bool *>(graph.periodic), {3}, torch::kBool).to(device);
  auto atoms = torch::make_intrusive<mta::SystemHolder>(types.index_select(0, nodes).to(device), to_model(positions),
                                                        to_model(cell), periodic);
  auto samples = ends.clone();
  samples.select(1, 1).copy_(torch::arange(with_edges, with_edges + n, torch::kInt));
  atoms->add_neighbor_list(lists.at(0), pairs(samples, vectors));
  atoms->add_data(format::N_CENTERS, count(with_edges));
  for (const auto &[name, value] : inputs) atoms->add_data(name, value);

  torch::Tensor values;
  std::vector<torch::Tensor> sent{vectors};
  {
    const MessageCopies copies(neighbors, graph.n_nodes);
    const auto chosen = request.all_centers ? torch::IValue(selected) : torch::IValue();
    last = inner.forward({std::vector<mta::System>{atoms}, outputs, chosen}).toGenericDict();
    values = mts::TensorMapHolder::block_by_id(last.at(energy_name).toCustomClass<mts::TensorMapHolder>(), 0)->values();
    for (const auto &each : MessageCopies::taken())
      if (each.requires_grad()) sent.push_back(each);
  }
  const auto back = torch::autograd::grad({values.sum()}, sent, {}, /*retain_graph=*/true);
  const auto &g = back.front();
  const auto v = doubles(velocities, graph.n_nodes).to(device);
  const auto v_neighbor = v.index_select(0, neighbors), w = v_neighbor - v.index_select(0, centers);
  auto j = -(g.to(torch::kDouble) * v_neighbor).sum(1).matmul(x);
  const std::vector<torch::Tensor> copies(sent.begin() + 1, sent.end());
  for (int64_t axis = 0; axis < 3 && !copies.empty(); axis++) {
    std::vector<torch::Tensor> moved;
    for (std::size_t k = 1; k < back.size(); k++)
      moved.push_back(-x.narrow(1, axis, 1).to(back[k].scalar_type()) * back[k]);
    const auto moment = torch::autograd::grad(copies, {vectors}, moved, /*retain_graph=*/true)[0];
    j[axis] += (moment.to(torch::kDouble) * w).sum();
  }

  Flux flux;
  set_potential(flux, j);
  flux_energies = values.detach().to(torch::kCPU, torch::kDouble).flatten().contiguous();
  if (flux_energies.numel() != graph.n_centers) throw std::runtime_error("the model gave energies of other atoms");
  flux.energies = flux_energies.data_ptr<double>();
  return flux;
}

Flux Evaluator::heat_flux(const Graph &graph, const Request &request, const std::vector<double> &velocities)
{
  torch::jit::GraphOptimizerEnabledGuard unoptimised(false);
  State &state = *state_;
  state.renew_selection(graph);
  state.request = request;
  const bool messages = state.info.exchange_width > 0 && state.info.interaction_range > state.info.cutoff;
  return messages ? state.message_flux(graph, request, velocities) : state.edge_flux(graph, request, velocities);
}

}    // namespace mlplugins
