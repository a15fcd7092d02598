// SPDX-License-Identifier: GPL-2.0-only
// The inside of the evaluator, which is all that knows torch; included by its own files only.
#ifndef MLPLUGINS_EVALUATOR_STATE_H
#define MLPLUGINS_EVALUATOR_STATE_H

#include "evaluator.h"
#include "model_file.h"

#include <metatomic/torch.hpp>

#include <algorithm>
#include <memory>
#include <string>
#include <vector>

namespace mlplugins {

namespace mta = metatomic_torch;
namespace mts = metatensor_torch;

/// Number of members of a committee in one file; 1 of other models.
int members_of(const torch::jit::Module &module);
inline const char *const LENGTH_UNIT = "angstrom";

/// NaN and infinity survive a multiplication by zero; several sums, so that the compiler can vectorise.
inline bool all_finite(const double *values, std::size_t count)
{
  constexpr std::size_t width = 8;
  double sums[width] = {};
  std::size_t i = 0;
  for (; i + width <= count; i += width)
    for (std::size_t k = 0; k < width; k++) sums[k] += 0.0 * values[i + k];
  for (; i < count; i++) sums[0] += 0.0 * values[i];
  return std::all_of(sums, sums + width, [](double sum) { return sum == 0.0; });
}

inline torch::Tensor view(const std::vector<double> &values, at::IntArrayRef shape)
{
  return torch::from_blob(const_cast<double *>(values.data()), shape, torch::kDouble);
}

inline mts::Labels labels(const std::vector<std::string> &names, const torch::Tensor &values)
{
  return torch::make_intrusive<mts::LabelsHolder>(names, values, metatensor::assume_unique{});
}

/// Everything that needs torch.
struct Evaluator::State {
  Settings settings;
  ModelInfo info;
  Result result;
  std::shared_ptr<const LoadedModel> loaded;
  std::shared_ptr<mts::Module> model;      ///< of `loaded`
  torch::jit::Module inner;                ///< the model without metatomic's wrapper
  mta::ModelCapabilities capabilities;
  std::vector<mta::NeighborListOptions> lists;
  torch::Dict<std::string, mta::ModelOutput> outputs;         ///< of every step
  torch::Dict<std::string, mta::ModelOutput> all_outputs;     ///< and those of some steps
  Request request;                         ///< of this step
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
  std::vector<torch::Tensor> probe_gradients;    ///< and probes
  /// Of the last evaluation, for a heat flux.
  struct Kept {
    bool whole = false;
    torch::Tensor vectors;
    std::vector<torch::Tensor> sent, moments;    ///< (N, D) and (3, N, D) of every exchange
  } kept;

  State(const Settings &s, int local_rank);
  void load();
  void take_fast_way(const Entries &entries);
  int64_t place_of(const std::string &output) const;
  torch::Tensor baseline_of(const std::string &output) const;
  void pick_device(int local_rank);
  void read_composition();
  void pick_outputs();
  void pick_system_outputs(const Entries &entries);
  torch::Dict<std::string, mta::ModelOutput> wanted() const;
  std::string output(const std::string &quantity, const std::string &variant, bool needed) const;
  std::string direct(const std::string &quantity, const std::string &variant, bool needed) const;

  torch::Tensor to_model(const torch::Tensor &values) const { return values.to(device, dtype); }
  mta::System system(const Graph &graph, const torch::Tensor &positions, const torch::Tensor &cell) const;
  void require_selection(const mta::System &system);
  mts::TensorBlock pairs(const torch::Tensor &samples, const torch::Tensor &vectors) const;
  void renew_selection(const Graph &graph);
  mts::TensorMap count(int64_t n) const;
  mts::TensorBlock run(const mta::System &system, bool select);
  mts::TensorBlock block(const std::string &name) const;
  torch::Tensor by_atom(const mts::TensorBlock &block, const Graph &graph) const;
  void read_energies(const mts::TensorBlock &block, const Graph &graph);
  void read_system_outputs(const Graph &graph);
  double composition_of(const std::string &output, const Graph &graph) const;
  torch::Tensor edge_gradients(const torch::Tensor &energy, const torch::Tensor &vectors, bool again = false) const;
  void find_force_uncertainty();
  void read_probes(const torch::Tensor &vectors);
  void edge_evaluation(const Graph &graph, const Request &request);
  void strain_evaluation(const Graph &graph, const Request &request);
  bool has_messages() const { return info.exchange_width > 0 && info.interaction_range > info.cutoff; }
  std::shared_ptr<void> notes_of_messages(const torch::Tensor &samples, const torch::Tensor &vectors) const;
  void keep_messages(const torch::Tensor &vectors);
  Flux kept_flux(const Graph &graph, const std::vector<double> &velocities);
  Flux copied_flux(const Graph &graph, const Request &request, const std::vector<double> &velocities);
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
