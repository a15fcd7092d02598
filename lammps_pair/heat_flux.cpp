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

/// Op mlplugins::message_moments: without edges, the end of its notes, which it returns.
std::vector<torch::Tensor> message_moments(const std::vector<torch::Tensor> &edges)
{
  using Signature = std::vector<torch::Tensor>(at::TensorList);
  static const auto op =
      c10::Dispatcher::singleton().findSchemaOrThrow("mlplugins::message_moments", "").typed<Signature>();
  return op.call(edges);
}

}    // namespace

/// Messages are noted until the result is gone, or notes are taken.
std::shared_ptr<void> Evaluator::State::notes_of_messages(const torch::Tensor &samples, const torch::Tensor &vectors) const
{
  if (!device.is_cpu()) return nullptr;
  message_moments({samples.select(1, 0).to(torch::kLong), samples.select(1, 1).to(torch::kLong), vectors.detach()});
  return {nullptr, [](void *) { message_moments({}); }};
}

void Evaluator::State::keep_messages(const torch::Tensor &vectors)
{
  const auto found = message_moments({});
  kept = {!has_messages() || !found.empty(), vectors, {}, {}};
  for (std::size_t k = 0; k < found.size(); k += 2) {
    kept.sent.push_back(found[k]);
    kept.moments.push_back(found[k + 1]);
    kept.whole = kept.whole && found[k + 1].dim() == 3;
  }
}

/// J = - sum of x_e (G_e . v_n), with the gradients G that forces come from, and with several layers the moments of
/// these gradients, by one more backward pass for each component.
Flux Evaluator::State::kept_flux(const Graph &graph, const std::vector<double> &velocities)
{
  const auto n = static_cast<int64_t>(graph.n_edges);
  const auto x = doubles(graph.vectors, n), v = doubles(velocities, graph.n_nodes);
  const auto ends = torch::from_blob(const_cast<int32_t *>(graph.samples.data()), {n, 5}, torch::kInt);
  const auto v_neighbor = v.index_select(0, ends.select(1, 1).to(torch::kLong));
  auto j = -(gradients * v_neighbor).sum(1).matmul(x);
  const auto w = v_neighbor - v.index_select(0, ends.select(1, 0).to(torch::kLong));
  for (int64_t axis = 0; axis < 3 && !kept.sent.empty(); axis++) {
    std::vector<torch::Tensor> from;
    for (const auto &each : kept.moments) from.push_back(each.select(0, axis));
    const auto moment = torch::autograd::grad(kept.sent, {kept.vectors}, from, /*retain_graph=*/axis < 2)[0];
    j[axis] += (moment.to(torch::kCPU, torch::kDouble) * w).sum();
  }
  kept = {};
  Flux flux;
  set_potential(flux, j);
  flux_energies = energies.flatten() - baselines;
  flux.energies = flux_energies.data_ptr<double>();
  return flux;
}

/// The same where something else than a convolution reads the messages: every edge has a copy of its own of them.
Flux Evaluator::State::copied_flux(const Graph &graph, const Request &request, const std::vector<double> &velocities)
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

bool Evaluator::keeps_heat_flux() const
{
  return state_->kept.whole;
}

Flux Evaluator::heat_flux(const Graph &graph, const Request &request, const std::vector<double> &velocities, bool copies)
{
  State &state = *state_;
  if (!copies) {
    if (!state.kept.whole) throw std::logic_error("nothing was kept for a heat flux");
    return state.kept_flux(graph, velocities);
  }
  torch::jit::GraphOptimizerEnabledGuard unoptimised(false);
  state.renew_selection(graph);
  state.request = request;
  return state.copied_flux(graph, request, velocities);
}

}    // namespace mlplugins
