// SPDX-License-Identifier: GPL-2.0-only
#ifndef MLPLUGINS_EVALUATOR_STATE_H
#define MLPLUGINS_EVALUATOR_STATE_H

#include "evaluator.h"
#include "model_file.h"

#include <metatomic/torch.hpp>

namespace mlplugins {

namespace mta = metatomic_torch;
namespace mts = metatensor_torch;

/// Number of members of a committee in one file; 1 of other models.
int members_of(const torch::jit::Module &module);

/// Everything that needs torch.
struct Evaluator::State {
  Settings settings;
  ModelInfo info;
  Result result;
  LoadedModel loaded;
  std::shared_ptr<mts::Module> model;      ///< of `loaded`
  torch::jit::Module inner;                ///< the model without metatomic's wrapper
  mta::ModelCapabilities capabilities;
  std::vector<mta::NeighborListOptions> lists;
  torch::Dict<std::string, mta::ModelOutput> outputs;         ///< of every step
  torch::Dict<std::string, mta::ModelOutput> all_outputs;     ///< and the uncertainties
  bool uncertain = false;                  ///< this step computes them
  std::string energy_name, uncertainty_name, forces_name, stress_name;
  torch::ScalarType dtype = torch::kDouble;
  torch::Device device = torch::kCPU;

  // kept between steps, renewed when the sizes change
  mts::Labels components, properties;      ///< of neighbour lists
  mts::Labels selected;                    ///< owned atoms
  mts::TensorMap n_centers;                ///< system data mlplugins::n_centers
  std::vector<std::pair<std::string, mts::TensorMap>> inputs;    ///< charge and spin, if the model takes them
  int64_t cached_centers = -1;
  bool selection_heeded = false;           ///< a total energy was seen to change with the selection
  torch::Tensor gradients, forces, energies, uncertainties, baselines;    ///< what `result` points into
  torch::Tensor flux_energies;             ///< and a flux

  State(const Settings &s, int local_rank);
  void load();
  void take_fast_way(const Entries &entries);
  void pick_device(int local_rank);
  void read_composition();
  void pick_outputs();
  std::string output(const std::string &quantity, const std::string &variant, bool needed) const;

  torch::Tensor to_model(const torch::Tensor &values) const { return values.to(device, dtype); }
  mta::System system(const Graph &graph, const torch::Tensor &positions, const torch::Tensor &cell) const;
  void require_selection(const mta::System &system);
  mts::TensorBlock pairs(const torch::Tensor &samples, const torch::Tensor &vectors) const;
  void renew_selection(const Graph &graph);
  mts::TensorMap count(int64_t n) const;
  mts::TensorBlock run(const mta::System &system, bool select);
  torch::Tensor by_atom(const mts::TensorBlock &block, const Graph &graph) const;
  void read_energies(const mts::TensorBlock &block, const Graph &graph);
  void edge_evaluation(const Graph &graph, const Request &request);
  void strain_evaluation(const Graph &graph, const Request &request);
  Flux edge_flux(const Graph &graph, const Request &request, const std::vector<double> &velocities);
  Flux message_flux(const Graph &graph, const Request &request, const std::vector<double> &velocities);
  void add_lists(const Graph &graph, const mta::System &system) const;
  void read_direct(const Graph &graph, bool virial);

  c10::impl::GenericDict last;    ///< all outputs of the last call

  // members of a committee
  std::vector<Result> members;
  torch::Tensor member_energies, member_gradients;    ///< what they point into
  void take_composition_of_first();
};

}    // namespace mlplugins

#endif
