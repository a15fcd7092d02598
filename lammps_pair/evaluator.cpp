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
  if (entries.no_energy && settings.is_inner && !settings.direct_forces)
    throw std::runtime_error("'" + settings.path + "' learned no energies, so that its forces are zero: for inner steps "
                             "name a model of energies, or `inner direct`");

  info.name = metadata->name;
  info.by_tag = entries.by_tag;
  info.together = entries.together;
  info.closest = entries.closest;
  for (const auto &entry : metadata->references)
    for (const std::string &reference : entry.value()) info.references.push_back(reference);
  pick_device(local_rank);
  for (const auto &input : structure_inputs(settings, *model, metadata)) {
    const auto options = torch::TensorOptions().dtype(dtype).device(device);
    inputs.emplace_back(input.name, system_data(input.name, input.value, options, input.unit));
    info.inputs.emplace_back(input.keyword, input.value);
  }
  pick_system_outputs(entries);
  pick_outputs();
  read_composition();
  info.family = "metatomic";
  if (entries.format > 0) take_fast_way(entries);

  components = labels({"xyz"}, torch::arange(3, torch::kInt).reshape({3, 1}).to(device));
  properties = labels({"distance"}, torch::zeros({1, 1}, torch::kInt).to(device));
}

/// If the module itself is one of ours (and no wrapper around one), its energy depends on the neighbour vectors only.
/// Its baseline is taken out of it and added in double: the energies of old float32 files would round it.
void Evaluator::State::take_fast_way(const Entries &entries)
{
  if (!loaded->baseline.defined()) return;
  const bool plain = place_of(energy_name) >= 0 && info.atom_energies && capabilities->length_unit() == LENGTH_UNIT &&
      capabilities->outputs().at(energy_name)->unit() == "eV";
  info.direct_edges = plain && settings.direct_forces && settings.direct_stress && !settings.check_consistency &&
      forces_name == "non_conservative_force" && stress_name == "non_conservative_stress";
  info.edge_model = plain && (info.direct_edges || (!settings.direct_forces && !settings.direct_stress));
  auto inside = inner.attr("baseline").toTensor();
  auto others = inner.hasattr("baselines") ? inner.attr("baselines").toTensor() : loaded->baselines.clone();
  if (info.edge_model) {
    inside.zero_();
    others.zero_();
  } else {
    inside.copy_(loaded->baseline);
    others.copy_(loaded->baselines);
  }
  if (!info.edge_model) return;
  if (lists.size() != 1 || info.cutoff != entries.cutoff)
    throw std::runtime_error("'" + settings.path + "' is damaged: its metadata say a cutoff of " +
                             std::to_string(entries.cutoff) + " A, but the model asks for neighbors within " +
                             std::to_string(info.cutoff) + " A; copy it again, or export the model again");
  info.family = entries.family;
  info.exchange_width = entries.exchange_width;
  info.n_members = members_of(inner);
  if (info.direct_edges && info.n_members > 1) {
    if (settings.drive_first)
      throw std::runtime_error("'" + settings.path + "' is a committee in one file, whose direct forces are those of the "
                               "mean; leave `drive first` out, or give its models as files of their own");
    info.n_members = 1;
  }
  if (info.n_members > 1 && settings.drive_first) take_composition_of_first();
  if (!entries.dtype.empty()) info.dtype = entries.dtype;
  find_force_uncertainty();
}

void Evaluator::State::load()
{
  loaded = load_model(settings);
  model = loaded->module;
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

/// Which of its energies an output of a model of ours is: 0 for the first, by either name; -1: none of them.
int64_t Evaluator::State::place_of(const std::string &output) const
{
  if (output == "energy") return 0;
  if (output.compare(0, 7, "energy/") != 0 || !inner.hasattr("energies")) return -1;
  const auto names = inner.attr("energies").toListRef();
  for (std::size_t k = 1; k < names.size(); k++)
    if (names[k].toStringRef() == output) return static_cast<int64_t>(k);
  return names.size() > 1 ? 0 : -1;
}

/// Composition energies per species of one of several energies of a model of ours.
torch::Tensor Evaluator::State::baseline_of(const std::string &output) const
{
  const auto place = place_of(output);
  return place > 0 ? loaded->baselines[place - 1].contiguous() : loaded->baseline;
}

double Evaluator::State::composition_of(const std::string &output, const Graph &graph) const
{
  const auto energies = baseline_of(output);
  const double *const of_species = energies.data_ptr<double>();
  const int64_t *const species = loaded->species_of_number.data_ptr<int64_t>();
  double sum = 0.0;
  for (int i = 0; i < graph.n_centers; i++) sum += of_species[species[graph.types[i]]];
  return sum;
}

/// Files of ours hold the energy per atom of each element that was taken off before training.
void Evaluator::State::read_composition()
{
  if (!loaded->baseline.defined()) return;
  const auto species = inner.attr("species_of_number").toTensor().to(torch::kCPU, torch::kLong);
  const auto energies = baseline_of(energy_name);
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
    std::sort(variants.begin(), variants.end());
    std::string known;
    for (const auto &name : variants) known += (known.empty() ? "" : ", ") + name;
    throw std::runtime_error("'" + settings.path + "': " + describe_current_exception() +
                             (known.empty() ? "" : "; it has " + known));
  }
}

/// The inner level of respa may have direct forces that were learned with another energy than the `variant` of the whole
/// model.
std::string Evaluator::State::direct(const std::string &quantity, const std::string &variant, bool needed) const
{
  const auto found = settings.is_inner ? output(quantity, variant, false) : "";
  return found.empty() ? output(quantity, settings.is_inner ? "" : variant, needed) : found;
}

/// metatomic declares direct forces by both names.
const char *const OTHER_SPELLING = "non_conservative_forces";

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
    forces_name = direct("non_conservative_force", settings.variant_forces, true);
    request(forces_name, "eV/A", "atom");
  }
  // the pressure is that of the whole model
  if (settings.direct_stress) stress_name = direct("non_conservative_stress", settings.variant_stress, !settings.is_inner);
  if (settings.direct_stress && stress_name.empty()) settings.direct_stress = false;
  if (settings.direct_stress) {
    request(stress_name, "eV/A^3", "system");
  }
  // of several energies the first is uncertain, under the plain name whatever its own
  const bool first = loaded->baseline.defined() && place_of(energy_name) == 0;
  const bool own_name = first && settings.variant_uncertainty == settings.variant_energy;
  uncertainty_name = output("energy_uncertainty", own_name ? "" : settings.variant_uncertainty, false);
  if (energy_name != "energy" && !first && uncertainty_name == "energy_uncertainty" && capabilities->outputs().contains("energy"))
    uncertainty_name.clear();
  info.first_uncertain = uncertainty_name.empty() && capabilities->outputs().contains("energy_uncertainty");
  info.atom_uncertainties =
      !uncertainty_name.empty() && capabilities->outputs().at(uncertainty_name)->sample_kind() == "atom";
  if (info.atom_uncertainties) request(uncertainty_name, "eV", "atom", settings.uncertainty_threshold > 0.0);
  for (const auto &entry : capabilities->outputs())
    if (entry.key() == "energy" || entry.key().compare(0, 7, "energy/") == 0) {
      if (entry.key() != energy_name) info.energy_output = energy_name;
    } else if (!all_outputs.contains(entry.key()) && !(settings.direct_forces && entry.key() == OTHER_SPELLING)) {
      info.unused += " " + entry.key();
    }
}

/// What files of ours say that they predict of whole systems, in the unit of the model.
void Evaluator::State::pick_system_outputs(const Entries &entries)
{
  for (const auto &given : entries.system_outputs) {
    if (!capabilities->outputs().contains(given.name)) continue;
    auto holder = torch::make_intrusive<mta::ModelOutputHolder>();
    holder->set_unit(capabilities->outputs().at(given.name)->unit());
    holder->set_sample_kind("system");
    all_outputs.insert(given.name, holder);
    info.system_outputs.push_back({given.name, holder->unit(), given.size, given.name.compare(0, 7, "energy/") == 0});
  }
}

/// The outputs of this step.
torch::Dict<std::string, mta::ModelOutput> Evaluator::State::wanted() const
{
  auto found = outputs.copy();
  if (info.direct_edges) {    // one set of numbers gives forces and stress
    found.erase(forces_name);
    found.erase(stress_name);
    found.insert(format::EDGE_GRADIENTS, torch::make_intrusive<mta::ModelOutputHolder>());
  }
  if (request.uncertainty && info.atom_uncertainties) found.insert(uncertainty_name, all_outputs.at(uncertainty_name));
  if (request.force_uncertainty) {
    auto holder = torch::make_intrusive<mta::ModelOutputHolder>();
    holder->set_sample_kind("atom");
    found.insert(format::FORCE_PROBES, holder);
  }
  if (request.system_outputs)
    for (const auto &each : info.system_outputs) found.insert(each.name, all_outputs.at(each.name));
  return found;
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
  const std::vector<mta::System> systems = {system};
  const auto wanted = this->wanted();
  if (info.edge_model && !settings.check_consistency) {
    // ours are in Å and eV, and their elements were checked: metatomic's wrapper has nothing to do
    last = inner.forward({systems, wanted, select ? torch::IValue(selected) : torch::IValue()}).toGenericDict();
    return block(energy_name);
  }
  auto options = torch::make_intrusive<mta::ModelEvaluationOptionsHolder>();
  options->set_length_unit(LENGTH_UNIT);
  options->outputs = wanted;
  if (select) options->set_selected_atoms(selected);
  last = model->forward({systems, options, settings.check_consistency}).toGenericDict();
  return block(energy_name);
}

/// The only block of an output of the last call.
mts::TensorBlock Evaluator::State::block(const std::string &name) const
{
  return mts::TensorMapHolder::block_by_id(last.at(name).toCustomClass<mts::TensorMapHolder>(), 0);
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
    const auto own = baseline_of(energy_name);
    const double *const of_species = own.data_ptr<double>();
    const int64_t *const species = loaded->species_of_number.data_ptr<int64_t>();
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
  if (info.atom_uncertainties && (request.uncertainty || settings.uncertainty_threshold > 0.0)) {
    uncertainties = by_atom(this->block(uncertainty_name), graph);
    result.uncertainties = uncertainties.data_ptr<double>();
    if (uncertainties.numel() > 0) result.largest_uncertainty = uncertainties.max().item<double>();
  }
}

/// Energies with their composition energies, which copies of the style with `baseline off` take off.
void Evaluator::State::read_system_outputs(const Graph &graph)
{
  result.system_outputs.clear();
  result.system_baselines.clear();
  if (!request.system_outputs) return;
  for (const auto &each : info.system_outputs) {
    auto values = block(each.name)->values().detach().to(torch::kCPU, torch::kDouble).contiguous();
    if (each.is_energy) {    // per atom, if it is the one that is evaluated
      const double composition = composition_of(each.name, graph);
      values = values.sum().reshape({1}) + (info.edge_model ? composition : 0.0);
      result.system_baselines.push_back(composition);
    }
    if (values.numel() != each.size)
      throw std::runtime_error("the output '" + each.name + "' has " + std::to_string(values.numel()) +
                               " components instead of " + std::to_string(each.size));
    const double *const v = values.data_ptr<double>();
    result.system_outputs.insert(result.system_outputs.end(), v, v + each.size);
    result.finite = result.finite && all_finite(v, each.size);
  }
}

/// dE/dv of every neighbour vector by one backward pass, or what a head of direct forces puts in its place.
/// @param again  whether other passes follow
torch::Tensor Evaluator::State::edge_gradients(const torch::Tensor &energy, const torch::Tensor &vectors, bool again) const
{
  torch::Tensor found;
  if (info.direct_edges)
    found = block(format::EDGE_GRADIENTS)->values().detach();
  else if (energy.requires_grad())
    found = torch::autograd::grad({energy.sum()}, {vectors}, {}, /*retain_graph=*/again, /*create_graph=*/false,
                                  /*allow_unused=*/true)[0];
  if (!found.defined()) return torch::zeros(vectors.sizes(), torch::kDouble);
  return found.to(torch::kCPU, torch::kDouble).contiguous();
}

/// Models of ours: values per neighbour vector give forces and all virials.
void Evaluator::State::edge_evaluation(const Graph &graph, const Request &request)
{
  const auto n = static_cast<int64_t>(graph.n_edges);
  const auto host = torch::from_blob(const_cast<double *>(graph.vectors.data()), {n, 3}, torch::kDouble);
  const torch::AutoGradMode gradients_needed(!info.direct_edges);
  auto vectors = to_model(host).requires_grad_(!info.direct_edges);
  const auto samples = torch::from_blob(const_cast<int32_t *>(graph.samples.data()), {n, 5}, torch::kInt);
  const auto positions = to_model(view(graph.positions, {graph.n_nodes, 3}));
  const auto cell = to_model(torch::from_blob(const_cast<double *>(graph.cell), {3, 3}, torch::kDouble));
  auto atoms = system(graph, positions, cell);
  atoms->add_neighbor_list(lists.at(0), pairs(samples, vectors));
  const bool ghosts = graph.n_nodes > graph.n_centers;
  // an empty rank in exchange mode still takes part in every communication
  if ((ghosts && !request.all_centers) || request.exchange) atoms->add_data(format::N_CENTERS, n_centers);

  if (request.force_uncertainty)
    atoms->add_data(format::N_PROBES,
                    system_data("n_probes", settings.probes, torch::TensorOptions().dtype(dtype).device(device)));

  const auto notes = request.heat_flux || request.own_gradients ? notes_of_messages(samples, vectors) : nullptr;
  const auto block = run(atoms, request.all_centers);
  read_energies(block, graph);
  read_system_outputs(graph);
  read_probes(vectors);
  gradients = edge_gradients(block->values(), vectors, request.heat_flux && has_messages());
  if (request.heat_flux) keep_messages(vectors);
  result.edge_gradients = gradients.data_ptr<double>();
  result.finite = result.finite && all_finite(result.edge_gradients, 3 * graph.n_edges);
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
  state_->request = request;
  state_->kept = {};
  if (state_->info.edge_model)
    state_->edge_evaluation(graph, request);
  else
    state_->strain_evaluation(graph, request);
  return state_->result;
}

}    // namespace mlplugins
