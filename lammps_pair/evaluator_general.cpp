// SPDX-License-Identifier: GPL-2.0-only
// Models of others: gradients with respect to positions and strain, or forces and stress of their own.

#include "evaluator_state.h"

#include <torch/csrc/autograd/autograd.h>

#include <cmath>
#include <stdexcept>

namespace mlplugins {

/// A total energy says nothing of the atoms it counts: it must change when ghosts are left out.
void Evaluator::State::require_selection(const mta::System &system)
{
  const torch::NoGradGuard guard;
  const auto total = [&](bool select) { return run(system, select)->values().sum().item<double>(); };
  const double all = total(false);
  selection_heeded = all != total(true);
  if (!selection_heeded && all != 0.0)
    throw std::runtime_error("the model has a total energy only and ignores the selection of atoms: with ghost atoms it "
                             "would count them; run it on one rank in mode fold");
}

/// The lists a foreign model asks for, each filtered from the longest one.
void Evaluator::State::add_lists(const Graph &graph, const mta::System &system) const
{
  const auto n = static_cast<int64_t>(graph.n_edges);
  const auto samples = torch::from_blob(const_cast<int32_t *>(graph.samples.data()), {n, 5}, torch::kInt);
  const auto vectors = torch::from_blob(const_cast<double *>(graph.vectors.data()), {n, 3}, torch::kDouble);
  for (const auto &options : lists) {
    std::vector<int64_t> rows;
    const double cutoff = options->engine_cutoff(LENGTH_UNIT);
    for (std::size_t e = 0; e < graph.n_edges; e++) {
      const double *v = &graph.vectors[3 * e];
      const int32_t *s = &graph.samples[5 * e];
      if (v[0] * v[0] + v[1] * v[1] + v[2] * v[2] >= cutoff * cutoff) continue;
      const int32_t zero[3] = {0, 0, 0};
      const bool second_half =
          s[0] > s[1] || (s[0] == s[1] && std::lexicographical_compare(s + 2, s + 5, zero, zero + 3));
      if (options->full_list() || !second_half) rows.push_back(static_cast<int64_t>(e));
    }
    const auto index = torch::tensor(rows, torch::kLong);
    auto block = pairs(samples.index_select(0, index), to_model(vectors.index_select(0, index)));
    mta::register_autograd_neighbors(system, block, settings.check_consistency);
    system->add_neighbor_list(options, block);
  }
}

/// Any metatomic model: gradients with respect to positions and a strain of positions and cell.
void Evaluator::State::strain_evaluation(const Graph &graph, const Request &request)
{
  const bool gradient_virial = request.virial && !settings.direct_stress;
  const auto options = torch::TensorOptions().dtype(dtype).device(device);
  auto strain = torch::eye(3, options).requires_grad_(gradient_virial);
  auto leaf = to_model(view(graph.positions, {graph.n_nodes, 3})).detach().requires_grad_(!settings.direct_forces);
  auto cell = to_model(torch::from_blob(const_cast<double *>(graph.cell), {3, 3}, torch::kDouble));
  if (gradient_virial) cell = torch::matmul(cell, strain);
  const auto positions = gradient_virial ? torch::matmul(leaf, strain) : leaf;
  auto atoms = system(graph, positions, cell);
  add_lists(graph, atoms);

  const bool select = graph.n_nodes > graph.n_centers;
  if (select && !info.atom_energies && !selection_heeded) require_selection(atoms);
  const auto block = run(atoms, select);
  read_energies(block, graph);
  read_system_outputs(graph);
  const auto values = block->values();
  std::vector<torch::Tensor> inputs;
  if (!settings.direct_forces) inputs.push_back(leaf);
  if (gradient_virial) inputs.push_back(strain);
  std::vector<torch::Tensor> grads(inputs.size());
  if (values.requires_grad() && !inputs.empty())
    grads = torch::autograd::grad({values.sum()}, inputs, {}, false, false, true);

  std::fill_n(result.strain_gradient, 9, 0.0);
  if (gradient_virial && grads.back().defined()) {
    const auto host = grads.back().to(torch::kCPU, torch::kDouble).contiguous();
    std::copy_n(host.data_ptr<double>(), 9, result.strain_gradient);
  }
  if (settings.direct_forces || settings.direct_stress) read_direct(graph, request.virial);
  if (!settings.direct_forces) {
    forces = torch::zeros({graph.n_nodes, 3}, torch::kDouble);
    if (grads.front().defined()) forces = grads.front().to(torch::kCPU, torch::kDouble).neg().contiguous();
  }
  result.forces = forces.data_ptr<double>();
  result.n_force_rows = static_cast<int>(forces.size(0));
  result.finite = result.finite && all_finite(result.forces, 3 * static_cast<std::size_t>(forces.size(0))) &&
      all_finite(result.strain_gradient, 9);
}

void Evaluator::State::read_direct(const Graph &graph, bool virial)
{
  if (settings.direct_forces) forces = by_atom(block(forces_name), graph);
  if (settings.direct_stress && virial) {
    const auto stress = block(stress_name)->values().detach().to(torch::kCPU, torch::kDouble).contiguous();
    for (int k = 0; k < 9; k++) result.strain_gradient[k] = graph.volume * stress.data_ptr<double>()[k];
  }
}

}    // namespace mlplugins
