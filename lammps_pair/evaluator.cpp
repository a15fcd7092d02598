// SPDX-License-Identifier: GPL-2.0-only

#include "evaluator_state.h"
#include "format.h"
#include "inputs.h"

#include <ATen/Parallel.h>
#include <ATen/Version.h>
#include <torch/cuda.h>
#include <torch/csrc/autograd/autograd.h>
#include <torch/csrc/jit/runtime/graph_executor.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <stdexcept>

using torch::indexing::Slice;

namespace mlplugins {

namespace {

const char *const LENGTH_UNIT = "angstrom";

/// NaN and infinity survive a multiplication by zero; several sums, so that the compiler can vectorise.
bool all_finite(const double *values, std::size_t count)
{
  constexpr std::size_t width = 8;
  double sums[width] = {};
  std::size_t i = 0;
  for (; i + width <= count; i += width)
    for (std::size_t k = 0; k < width; k++) sums[k] += 0.0 * values[i + k];
  for (; i < count; i++) sums[0] += 0.0 * values[i];
  return std::all_of(sums, sums + width, [](double sum) { return sum == 0.0; });
}

torch::Tensor view(const std::vector<double> &values, at::IntArrayRef shape)
{
  return torch::from_blob(const_cast<double *>(values.data()), shape, torch::kDouble);
}

mts::Labels labels(const std::vector<std::string> &names, const torch::Tensor &values)
{
  return torch::make_intrusive<mts::LabelsHolder>(names, values, metatensor::assume_unique{});
}

}    // namespace

std::string torch_release()
{
  const std::string config = at::show_config();
  const std::string key = "TORCH_VERSION=";
  const auto start = config.find(key);
  if (start == std::string::npos) return "";
  return config.substr(start + key.size(), config.find_first_of(", +\n", start) - start - key.size());
}

Evaluator::State::State(const Settings &s, int local_rank) :
    settings(s), last(c10::StringType::get(), c10::AnyType::get())
{
  const torch::jit::GraphOptimizerEnabledGuard unoptimised(false);  // methods that are asked once are not worth it
  const auto metadata = read_metadata(settings.path);
  const auto entries = read_entries(settings.path, metadata);
  load();

  info.name = metadata->name;
  info.by_tag = entries.by_tag;
  for (const auto &entry : metadata->references)
    for (const std::string &reference : entry.value()) info.references.push_back(reference);
  pick_device(local_rank);
  for (const auto &input : structure_inputs(settings, *model, metadata)) {
    const auto options = torch::TensorOptions().dtype(dtype).device(device);
    inputs.emplace_back(input.name, system_data(input.name, input.value, options, input.unit));
    info.inputs.emplace_back(input.keyword, input.value);
  }
  read_composition();
  pick_outputs();
  info.family = "metatomic";
  if (entries.format > 0) take_fast_way(entries);

  components = labels({"xyz"}, torch::arange(3, torch::kInt).reshape({3, 1}).to(device));
  properties = labels({"distance"}, torch::zeros({1, 1}, torch::kInt).to(device));
}

/// If the module itself is one of ours (and no wrapper around one), its energy depends on the neighbour vectors only.
/// Its baseline is taken out of it and added in double: the energies of old float32 files would round it.
void Evaluator::State::take_fast_way(const Entries &entries)
{
  if (!loaded.baseline.defined()) return;
  const bool plain = energy_name == "energy" && info.atom_energies && capabilities->length_unit() == LENGTH_UNIT &&
      capabilities->outputs().at(energy_name)->unit() == "eV";
  info.edge_model = plain && !settings.direct_forces && !settings.direct_stress;
  auto inside = inner.attr("baseline").toTensor();
  if (info.edge_model)
    inside.zero_();
  else
    inside.copy_(loaded.baseline);
  if (!info.edge_model) return;
  if (lists.size() != 1 || info.cutoff != entries.cutoff)
    throw std::runtime_error("'" + settings.path + "' is damaged: its metadata say a cutoff of " +
                             std::to_string(entries.cutoff) + " A, but the model asks for neighbors within " +
                             std::to_string(info.cutoff) + " A; copy it again, or export the model again");
  info.family = entries.family;
  info.exchange_width = entries.exchange_width;
  info.n_members = members_of(inner);
  if (info.n_members > 1 && settings.drive_first) take_composition_of_first();
  if (!entries.dtype.empty()) info.dtype = entries.dtype;
}

void Evaluator::State::load()
{
  loaded = load_model(settings);
  model = loaded.module;
  capabilities = model->run_method("capabilities").toCustomClass<mta::ModelCapabilitiesHolder>();
  info.dtype = capabilities->dtype();
  info.interaction_range = capabilities->engine_interaction_range(LENGTH_UNIT);
  info.numbers.assign(capabilities->atomic_types.begin(), capabilities->atomic_types.end());
  if (info.dtype != "float64" && info.dtype != "float32")
    throw std::runtime_error("'" + settings.path + "' computes in " + info.dtype + "; expected float32 or float64");
  dtype = info.dtype == "float64" ? torch::kDouble : torch::kFloat;

  for (const auto &value : model->run_method("requested_neighbor_lists").toList()) {
    lists.push_back(torch::IValue(value).toCustomClass<mta::NeighborListOptionsHolder>());
    info.cutoff = std::max(info.cutoff, lists.back()->engine_cutoff(LENGTH_UNIT));
  }
  // metatomic's D3 wrapper declares the range of its pairs; the coordination of the second atom reaches further
  const auto wrapper = model->attr("module").toModule();
  if (wrapper.hasattr("_cutoff") && wrapper.hasattr("_cn_cutoff"))
    info.interaction_range = std::max(info.interaction_range,
                                      (wrapper.attr("_cutoff").toDouble() + wrapper.attr("_cn_cutoff").toDouble()) *
                                          mta::unit_conversion_factor(capabilities->length_unit(), LENGTH_UNIT));
  if (info.cutoff == 0.0) info.cutoff = std::isfinite(info.interaction_range) ? info.interaction_range : 0.0;
}

void Evaluator::State::pick_device(int local_rank)
{
  const std::string wanted = settings.device.substr(0, settings.device.find(':'));
  const auto &supported = capabilities->supported_devices;
  if (!wanted.empty() && std::find(supported.begin(), supported.end(), wanted) == supported.end())
    throw std::runtime_error("the model does not support the device '" + settings.device + "'");
  if (wanted == "cuda" && !torch::cuda::is_available())
    throw std::runtime_error("device cuda: this torch (" + torch_release() +
                             ") sees no GPU; use `device cpu`, or install a CUDA build of torch");
  device = settings.device.empty() ? torch::Device(mta::pick_device(supported, torch::nullopt)) : torch::Device(settings.device);
  if (device.is_cuda() && !device.has_index())
    device = torch::Device(torch::kCUDA, static_cast<c10::DeviceIndex>(local_rank % torch::cuda::device_count()));
  model->to(device);
  inner = model->attr("module").toModule();
  info.device = device.str();
}

/// Files of ours hold the energy per atom of each element that was taken off before training.
void Evaluator::State::read_composition()
{
  if (!loaded.baseline.defined()) return;
  const auto species = inner.attr("species_of_number").toTensor().to(torch::kCPU, torch::kLong);
  const auto energies = loaded.baseline.to(torch::kCPU, torch::kDouble);
  for (const int number : info.numbers)
    info.composition[number] = energies[species[number].item<int64_t>()].item<double>();
}

/// Name of the output, honouring variants (`pbe` or `energy/pbe`); the only one where there is no default; empty if
/// the model has none and it is not needed.
std::string Evaluator::State::output(const std::string &quantity, const std::string &variant, bool needed) const
{
  torch::optional<std::string> chosen;
  const std::string prefix = quantity + "/";
  if (!variant.empty()) chosen = variant.compare(0, prefix.size(), prefix) == 0 ? variant.substr(prefix.size()) : variant;
  std::vector<std::string> variants;
  for (const auto &entry : capabilities->outputs())
    if (entry.key() == quantity || entry.key().compare(0, prefix.size(), prefix) == 0) variants.push_back(entry.key());
  if (variants.size() == 1 && (variant.empty() || variant == variants[0])) return variants[0];
  if (variant == quantity) chosen = torch::nullopt;
  try {
    return mta::pick_output(quantity, capabilities->outputs(), chosen);
  } catch (const std::exception &) {
    if (!needed) return "";
    throw std::runtime_error("'" + settings.path + "': " + describe_current_exception());
  }
}

void Evaluator::State::pick_outputs()
{
  const auto request = [this](const std::string &name, const std::string &unit, const std::string &kind,
                              bool each_step = true) {
    auto holder = torch::make_intrusive<mta::ModelOutputHolder>();
    holder->set_unit(unit);
    holder->set_sample_kind(kind);
    if (each_step) outputs.insert(name, holder);
    all_outputs.insert(name, holder);
  };
  energy_name = output("energy", settings.variant_energy, true);
  info.atom_energies = capabilities->outputs().at(energy_name)->sample_kind() == "atom";
  request(energy_name, "eV", info.atom_energies ? "atom" : "system");
  if (settings.direct_forces) {
    forces_name = output("non_conservative_force", settings.variant_forces, true);
    request(forces_name, "eV/A", "atom");
  }
  if (settings.direct_stress) {
    stress_name = output("non_conservative_stress", settings.variant_stress, true);
    request(stress_name, "eV/A^3", "system");
  }
  uncertainty_name = output("energy_uncertainty", settings.variant_uncertainty, false);
  info.atom_uncertainties =
      !uncertainty_name.empty() && capabilities->outputs().at(uncertainty_name)->sample_kind() == "atom";
  if (info.atom_uncertainties) request(uncertainty_name, "eV", "atom", settings.uncertainty_threshold > 0.0);
  for (const auto &entry : capabilities->outputs())
    if (entry.key() == "energy" || entry.key().compare(0, 7, "energy/") == 0) {
      if (entry.key() != energy_name) info.energy_output = energy_name;
    } else if (!all_outputs.contains(entry.key())) info.unused += " " + entry.key();
}

mta::System Evaluator::State::system(const Graph &graph, const torch::Tensor &positions,
                                     const torch::Tensor &cell) const
{
  const auto types =
      torch::from_blob(const_cast<int32_t *>(graph.types.data()), {graph.n_nodes}, torch::kInt).to(device);
  const auto periodic = torch::from_blob(const_cast<bool *>(graph.periodic), {3}, torch::kBool).to(device);
  auto system = torch::make_intrusive<mta::SystemHolder>(types, positions, cell, periodic);
  for (const auto &[name, value] : inputs) system->add_data(name, value);
  return system;
}

mts::TensorBlock Evaluator::State::pairs(const torch::Tensor &samples, const torch::Tensor &vectors) const
{
  const static std::vector<std::string> names = {"first_atom", "second_atom", "cell_shift_a", "cell_shift_b",
                                                 "cell_shift_c"};
  return torch::make_intrusive<mts::TensorBlockHolder>(
      vectors.reshape({-1, 3, 1}), labels(names, samples.to(device)), std::vector<mts::Labels>{components}, properties);
}

/// Labels and data that name the owned atoms; their number changes only when LAMMPS rebuilds its lists.
void Evaluator::State::renew_selection(const Graph &graph)
{
  if (cached_centers == graph.n_centers) return;
  cached_centers = graph.n_centers;
  const auto atoms = torch::arange(graph.n_centers, torch::kInt);
  selected = labels({"system", "atom"}, torch::stack({torch::zeros_like(atoms), atoms}, 1).to(device));
  n_centers = count(graph.n_centers);
}

/// System data mlplugins::n_centers.
mts::TensorMap Evaluator::State::count(int64_t n) const
{
  return system_data("n_centers", n, torch::TensorOptions().dtype(dtype).device(device));
}

mts::TensorBlock Evaluator::State::run(const mta::System &system, bool select)
{
  const auto energy = [this] {
    return mts::TensorMapHolder::block_by_id(last.at(energy_name).toCustomClass<mts::TensorMapHolder>(), 0);
  };
  const std::vector<mta::System> systems = {system};
  const auto &wanted = uncertain ? all_outputs : outputs;
  if (info.edge_model && !settings.check_consistency) {
    // ours are in Å and eV, and their elements were checked: metatomic's wrapper has nothing to do
    last = inner.forward({systems, wanted, select ? torch::IValue(selected) : torch::IValue()}).toGenericDict();
    return energy();
  }
  auto options = torch::make_intrusive<mta::ModelEvaluationOptionsHolder>();
  options->set_length_unit(LENGTH_UNIT);
  options->outputs = wanted;
  if (select) options->set_selected_atoms(selected);
  last = model->forward({systems, options, settings.check_consistency}).toGenericDict();
  return energy();
}

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

/// Rows of a per-atom output in the order of the nodes; ours come in that order, others may come in any.
torch::Tensor Evaluator::State::by_atom(const mts::TensorBlock &block, const Graph &graph) const
{
  const auto values = block->values().detach().to(torch::kCPU, torch::kDouble).contiguous();
  const auto rows = values.reshape({values.size(0), values.numel() / std::max<int64_t>(values.size(0), 1)});
  if (rows.size(0) != graph.n_centers)
    throw std::runtime_error("the model returned values for " + std::to_string(rows.size(0)) +
                             " atoms instead of the " + std::to_string(graph.n_centers) + " that were selected");
  if (info.edge_model) return rows;
  const auto atoms = block->samples()->column("atom").to(torch::kCPU, torch::kLong);
  return torch::zeros_like(rows).index_copy(0, atoms, rows);
}

void Evaluator::State::read_energies(const mts::TensorBlock &block, const Graph &graph)
{
  energies = info.atom_energies ? by_atom(block, graph)
                                : block->values().detach().to(torch::kCPU, torch::kDouble).contiguous();
  result.baselines = nullptr;
  if (info.edge_model) {
    baselines = torch::empty({graph.n_centers}, torch::kDouble);
    double *const b = baselines.data_ptr<double>();
    const double *const of_species = loaded.baseline.data_ptr<double>();
    const int64_t *const species = loaded.species_of_number.data_ptr<int64_t>();
    for (int i = 0; i < graph.n_centers; i++) b[i] = of_species[species[graph.types[i]]];
    energies = energies.flatten() + baselines;
    result.baselines = b;
  }
  const double *e = energies.data_ptr<double>();
  result.energy = 0.0;
  for (int64_t i = 0; i < energies.numel(); i++) result.energy += e[i];
  result.energies = info.atom_energies ? e : nullptr;
  result.finite = std::isfinite(result.energy);

  result.largest_uncertainty = -1.0;
  result.uncertainties = nullptr;
  if (info.atom_uncertainties && (uncertain || settings.uncertainty_threshold > 0.0)) {
    const auto spread = last.at(uncertainty_name).toCustomClass<mts::TensorMapHolder>();
    uncertainties = by_atom(mts::TensorMapHolder::block_by_id(spread, 0), graph);
    result.uncertainties = uncertainties.data_ptr<double>();
    if (uncertainties.numel() > 0) result.largest_uncertainty = uncertainties.max().item<double>();
  }
}

/// Models of ours: one backward pass to the neighbour vectors gives forces and all virials.
void Evaluator::State::edge_evaluation(const Graph &graph, const Request &request)
{
  const auto n = static_cast<int64_t>(graph.n_edges);
  const auto host = torch::from_blob(const_cast<double *>(graph.vectors.data()), {n, 3}, torch::kDouble);
  auto vectors = to_model(host).requires_grad_(true);
  const auto samples = torch::from_blob(const_cast<int32_t *>(graph.samples.data()), {n, 5}, torch::kInt);
  const auto positions = to_model(view(graph.positions, {graph.n_nodes, 3}));
  const auto cell = to_model(torch::from_blob(const_cast<double *>(graph.cell), {3, 3}, torch::kDouble));
  auto atoms = system(graph, positions, cell);
  atoms->add_neighbor_list(lists.at(0), pairs(samples, vectors));
  const bool ghosts = graph.n_nodes > graph.n_centers;
  // an empty rank in exchange mode still takes part in every communication
  if ((ghosts && !request.all_centers) || request.exchange) atoms->add_data(format::N_CENTERS, n_centers);

  const auto block = run(atoms, request.all_centers);
  read_energies(block, graph);
  const auto values = block->values();
  gradients = torch::Tensor();
  if (values.requires_grad())
    gradients = torch::autograd::grad({values.sum()}, {vectors}, {}, /*retain_graph=*/false, /*create_graph=*/false,
                                      /*allow_unused=*/true)[0];
  if (!gradients.defined()) gradients = torch::zeros({n, 3}, torch::kDouble);
  gradients = gradients.to(torch::kCPU, torch::kDouble).contiguous();
  result.edge_gradients = gradients.data_ptr<double>();
  result.finite = result.finite && all_finite(result.edge_gradients, 3 * graph.n_edges);
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
  const auto block = [this](const std::string &name) {
    return mts::TensorMapHolder::block_by_id(last.at(name).toCustomClass<mts::TensorMapHolder>(), 0);
  };
  if (settings.direct_forces) forces = by_atom(block(forces_name), graph);
  if (settings.direct_stress && virial) {
    const auto stress = block(stress_name)->values().detach().to(torch::kCPU, torch::kDouble).contiguous();
    for (int k = 0; k < 9; k++) result.strain_gradient[k] = graph.volume * stress.data_ptr<double>()[k];
  }
}

Evaluator::Evaluator(const Settings &settings, int local_rank) : state_(std::make_unique<State>(settings, local_rank))
{
}

Evaluator::~Evaluator() = default;

const ModelInfo &Evaluator::info() const
{
  return state_->info;
}

const Result &Evaluator::evaluate(const Graph &graph, const Request &request)
{
  // positions and the number of pairs change at every step: specialised graphs would be compiled again and again
  torch::jit::GraphOptimizerEnabledGuard unoptimised(false);
  state_->renew_selection(graph);
  state_->uncertain = request.uncertainty && state_->info.atom_uncertainties;
  if (state_->info.edge_model)
    state_->edge_evaluation(graph, request);
  else
    state_->strain_evaluation(graph, request);
  return state_->result;
}

}    // namespace mlplugins
