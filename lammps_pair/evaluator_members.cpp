// SPDX-License-Identifier: GPL-2.0-only
// Members of a committee in one file: the family's own method, beneath metatomic's labels, takes one copy of the
// neighbour vectors for each.

#include "evaluator_state.h"

#include <torch/csrc/autograd/autograd.h>
#include <torch/csrc/jit/runtime/graph_executor.h>

#include <cmath>
#include <numeric>

namespace mlplugins {

namespace {

const char *const N_MEMBERS = "n_members";

/// The first rows of a buffer of integers.
template <class T> torch::Tensor rows(const std::vector<T> &values, int64_t count, int64_t width, torch::Dtype type)
{
  return torch::from_blob(const_cast<T *>(values.data()), {count, width}, type);
}

/// `Graph` of mlplugins/structures/graph.py, of the type that the program knows it by.
torch::IValue graph_of(const Graph &graph, const torch::Tensor &species_of_number, const torch::Tensor &vectors,
                       bool all_centers, const torch::IValue &state, const c10::TypePtr &type)
{
  const auto device = vectors.device();
  const auto types = torch::from_blob(const_cast<int32_t *>(graph.types.data()), {graph.n_nodes}, torch::kInt);
  const auto species = species_of_number.index_select(0, types.to(torch::kLong)).to(device);
  const auto samples = rows(graph.samples, static_cast<int64_t>(graph.n_edges), 5, torch::kInt).to(torch::kLong);
  const int64_t n_centers = all_centers ? graph.n_nodes : graph.n_centers;
  return c10::ivalue::Tuple::createNamed({species, samples.select(1, 0).contiguous().to(device),
                                          samples.select(1, 1).contiguous().to(device), vectors,
                                          torch::zeros({graph.n_nodes}, torch::kLong).to(device), n_centers, state},
                                         type->expect<c10::TupleType>());
}

}    // namespace

int members_of(const torch::jit::Module &module)
{
  const auto potential = module.attr("potential").toModule();
  return potential.hasattr(N_MEMBERS) ? static_cast<int>(potential.attr(N_MEMBERS).toInt()) : 1;
}

/// The file has the mean composition energies; where the first member drives, its own count.
void Evaluator::State::take_composition_of_first()
{
  const auto offsets = inner.attr("potential").toModule().attr("offsets").toTensor().to(torch::kCPU, torch::kDouble);
  const auto species = loaded->species_of_number.to(torch::kCPU, torch::kLong);
  for (auto &[number, energy] : info.composition) energy += offsets[0][species[number]].item<double>();
}

const std::vector<Result> &Evaluator::members(const Graph &graph, const Request &request, int count)
{
  torch::jit::GraphOptimizerEnabledGuard unoptimised(false);    // as in evaluate()
  State &s = *state_;
  const auto n = static_cast<int64_t>(graph.n_edges);
  // the family computes in this precision, whatever metatomic is told of inputs and outputs
  const auto precision = s.info.dtype == "float32" ? torch::kFloat : torch::kDouble;
  const auto shared =
      torch::from_blob(const_cast<double *>(graph.vectors.data()), {n, 3}, torch::kDouble).to(s.device, precision);
  auto vectors = shared.repeat({count, 1, 1}).requires_grad_(true);    // (count, E, 3)
  const auto species = s.loaded->species_of_number.to(torch::kCPU, torch::kLong);
  const auto method = s.inner.attr("potential").toModule().get_method("members");
  const auto &type = method.function().getSchema().arguments().at(1).type();    // after the module itself
  torch::IValue state;    // charge and spin multiplicity, for members that take them
  if (!s.inputs.empty())
    state = torch::tensor({{s.settings.charge.value_or(0.0), s.settings.spin.value_or(1.0)}}, torch::kDouble).to(s.device);
  const auto input = graph_of(graph, species, shared, request.all_centers, state, type);
  const auto samples = rows(graph.samples, n, 5, torch::kInt);
  const auto notes = request.own_gradients ? s.notes_of_messages(samples, shared) : nullptr;
  const auto found = method({input, vectors}).toList();
  std::vector<torch::Tensor> each;
  for (const torch::IValue one : found)
    each.push_back(one.toGenericDict().at("energy").toTensor().slice(0, 0, graph.n_centers));
  const auto energies = torch::stack(each);    // (count, n_centers)
  s.member_gradients = torch::Tensor();
  if (energies.requires_grad())
    s.member_gradients = torch::autograd::grad({energies.sum()}, {vectors}, {}, false, false, true)[0];
  if (!s.member_gradients.defined()) s.member_gradients = torch::zeros({count, n, 3}, torch::kDouble);
  s.member_gradients = s.member_gradients.to(torch::kCPU, torch::kDouble).contiguous();

  std::vector<int64_t> nodes(graph.types.begin(), graph.types.begin() + graph.n_centers);
  s.baselines = torch::zeros({graph.n_centers}, torch::kDouble);
  if (!nodes.empty())
    s.baselines = s.loaded->baseline.index_select(0, species.index_select(0, torch::tensor(nodes, torch::kLong)));
  s.member_energies = (energies.detach().to(torch::kCPU, torch::kDouble) + s.baselines).contiguous();

  s.members.assign(count, Result());
  for (int m = 0; m < count; m++) {
    Result &result = s.members[m];
    const double *e = s.member_energies.data_ptr<double>() + static_cast<int64_t>(m) * graph.n_centers;
    const double *g = s.member_gradients.data_ptr<double>() + 3 * m * n;
    result.energies = e;
    result.baselines = s.baselines.data_ptr<double>();
    result.energy = std::accumulate(e, e + graph.n_centers, 0.0);
    result.edge_gradients = g;
    // NaN and infinity survive a sum
    result.finite = std::isfinite(result.energy) && std::isfinite(std::accumulate(g, g + 3 * n, 0.0));
  }
  return s.members;
}

}    // namespace mlplugins
