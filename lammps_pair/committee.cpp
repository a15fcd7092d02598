// SPDX-License-Identifier: GPL-2.0-only

#include "committee.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <filesystem>
#include <map>
#include <utility>

namespace mlplugins {

std::shared_ptr<Committee> Committee::of(const Settings &settings, int local_rank, const void *owner)
{
  static std::map<std::pair<const void *, std::string>, std::weak_ptr<Committee>> known;
  for (const auto &path : settings.paths)
    if (!std::filesystem::is_regular_file(path)) return std::make_shared<Committee>(settings, local_rank);    // which says so
  auto &place = known[{owner, identity(settings)}];
  auto found = place.lock();
  if (!found) place = found = std::make_shared<Committee>(settings, local_rank);
  return found;
}

void Committee::remember(const Graph &graph, const Request &request)
{
  graph_.n_centers = graph.n_centers;
  graph_.n_nodes = graph.n_nodes;
  graph_.n_edges = graph.n_edges;
  graph_.types = graph.types;
  graph_.positions = graph.positions;
  graph_.samples.assign(graph.samples.begin(), graph.samples.begin() + 5 * graph.n_edges);
  graph_.vectors.assign(graph.vectors.begin(), graph.vectors.begin() + 3 * graph.n_edges);
  std::copy_n(graph.cell, 9, graph_.cell);
  std::copy_n(graph.periodic, 3, graph_.periodic);
  graph_.volume = graph.volume;
  request_ = request;
  valid_ = true;
}

bool Committee::remembers(const Graph &graph, const Request &request, int count) const
{
  const Graph &g = graph_;
  const auto equal = [](const auto &ours, const auto &theirs, std::size_t n) {
    return std::memcmp(ours, theirs, n * sizeof *ours) == 0;
  };
  return valid_ && count <= static_cast<int>(results_.size()) && request.exchange == request_.exchange &&
      request.all_centers == request_.all_centers && request.virial <= request_.virial &&
      request.uncertainty <= request_.uncertainty && request.force_uncertainty <= request_.force_uncertainty &&
      request.system_outputs <= request_.system_outputs && request.own_gradients <= request_.own_gradients &&
      graph.n_centers == g.n_centers && graph.n_nodes == g.n_nodes && graph.n_edges == g.n_edges &&
      graph.volume == g.volume && equal(g.cell, graph.cell, 9) && equal(g.periodic, graph.periodic, 3) &&
      graph.types == g.types && graph.positions == g.positions &&
      equal(g.vectors.data(), graph.vectors.data(), 3 * g.n_edges) &&
      equal(g.samples.data(), graph.samples.data(), 5 * g.n_edges);
}

Committee::Committee(const Settings &settings, int local_rank) :
    paths_(settings.paths), first_drives_(settings.drive_first), threshold_(settings.uncertainty_threshold)
{
  for (const auto &path : paths_) {
    Settings own = settings;
    own.path = path;
    evaluators_.push_back(std::make_unique<Evaluator>(own, local_rank));
  }
  info_ = evaluators_.front()->info();
  for (std::size_t k = 1; k < evaluators_.size(); k++) combine(evaluators_[k]->info());
  for (const auto &evaluator : evaluators_) judge(evaluator->info());
  can_exchange_ = can_exchange_ && info_.exchange_width > 0;
  // a deep model of short range beside a shallow one of long range: its ghosts have edges
  if (!one_layer_ && info_.interaction_range <= info_.cutoff) info_.interaction_range = (1 + 1e-6) * info_.cutoff;
  if (size() == 1) return;
  info_.atom_uncertainties = info_.atom_energies;
  info_.force_floor = -1.0;    // they have their spread
  info_.first_uncertain = false;
  for (const auto &each : info_.system_outputs) info_.unused += " " + each.name;
  info_.system_outputs.clear();    // compute pair shows the model deviation
}

void Committee::judge(const ModelInfo &model)
{
  const bool one_layer = model.edge_model && model.interaction_range <= model.cutoff;
  one_layer_ = one_layer_ && one_layer;
  can_exchange_ = can_exchange_ && model.edge_model && (one_layer || model.exchange_width > 0);
}

/// What is known of several models; `info_` is that of those before `other`.
void Committee::combine(const ModelInfo &other)
{
  const int before = info_.n_members, all = before + other.n_members;
  if (info_.family != other.family) info_.family = "several families";
  if (info_.dtype != other.dtype) info_.dtype = "several precisions";
  info_.cutoff = std::max(info_.cutoff, other.cutoff);
  std::map<std::pair<int, int>, double> closest;    // of what all of them know
  for (const auto &[pair, distance] : other.closest)
    if (const auto found = info_.closest.find(pair); found != info_.closest.end())
      closest[pair] = std::min(distance, found->second);
  info_.closest = closest;
  info_.interaction_range = std::max(info_.interaction_range, other.interaction_range);
  info_.exchange_width = std::max(info_.exchange_width, other.exchange_width);
  info_.edge_model = info_.edge_model && other.edge_model;
  info_.by_tag = info_.by_tag || other.by_tag;
  info_.together = info_.together || other.together;
  info_.atom_energies = info_.atom_energies && other.atom_energies;
  const auto unknown = [&](int number) {
    return std::find(other.numbers.begin(), other.numbers.end(), number) == other.numbers.end();
  };
  info_.numbers.erase(std::remove_if(info_.numbers.begin(), info_.numbers.end(), unknown), info_.numbers.end());
  if (!first_drives_) {
    std::map<int, double> mean;
    for (const auto &[number, energy] : info_.composition) {
      const auto found = other.composition.find(number);
      if (found != other.composition.end()) mean[number] = (before * energy + other.n_members * found->second) / all;
    }
    info_.composition = mean;
  }
  info_.n_members = all;
  if (info_.energy_output.empty()) info_.energy_output = other.energy_output;
  for (const auto &input : other.inputs)
    if (std::find(info_.inputs.begin(), info_.inputs.end(), input) == info_.inputs.end()) info_.inputs.push_back(input);
  for (const auto &reference : other.references)
    if (std::find(info_.references.begin(), info_.references.end(), reference) == info_.references.end())
      info_.references.push_back(reference);
}

std::vector<std::string> Committee::describe() const
{
  std::vector<std::string> lines;
  for (std::size_t k = 0; k < evaluators_.size(); k++) {
    const auto &model = evaluators_[k]->info();
    lines.push_back((model.name.empty() ? paths_[k] : model.name) + " (" + model.family + ", " + model.dtype + ")");
  }
  return lines;
}

/// The edges that a model of ours expects; others choose theirs themselves.
const Graph &Committee::within(const Graph &graph, const ModelInfo &model)
{
  if (!model.edge_model || model.cutoff >= info_.cutoff) return graph;
  shorter_ = graph;
  kept_.clear();
  for (std::size_t e = 0; e < graph.n_edges; e++) {
    const double *v = &graph.vectors[3 * e];
    if (v[0] * v[0] + v[1] * v[1] + v[2] * v[2] >= model.cutoff * model.cutoff) continue;
    std::copy_n(v, 3, &shorter_.vectors[3 * kept_.size()]);
    std::copy_n(&graph.samples[5 * e], 5, &shorter_.samples[5 * kept_.size()]);
    kept_.push_back(e);
  }
  shorter_.n_edges = kept_.size();
  return shorter_;
}

const std::vector<Result> &Committee::evaluate(const Graph &graph, const Request &request, int count)
{
  valid_ = false;
  evaluations_++;
  results_.clear();
  gradients_.clear();
  for (const auto &evaluator : evaluators_) {
    const std::size_t first = results_.size();
    const int missing = count - static_cast<int>(first);
    if (missing <= 0) break;
    const auto &model = evaluator->info();
    const Graph &own = within(graph, model);
    if (model.n_members > 1) {
      const auto &found = evaluator->members(own, request, std::min(missing, model.n_members));
      results_.insert(results_.end(), found.begin(), found.end());
    } else {
      results_.push_back(evaluator->evaluate(own, request));
    }
    if (&own == &graph) continue;
    for (std::size_t m = first; m < results_.size(); m++) {
      gradients_.emplace_back(3 * graph.n_edges, 0.0);
      for (std::size_t e = 0; e < kept_.size(); e++)
        std::copy_n(results_[m].edge_gradients + 3 * e, 3, &gradients_.back()[3 * kept_[e]]);
      results_[m].edge_gradients = gradients_.back().data();
    }
  }
  if (size() > 1) spread(graph.n_centers);
  return results_;
}

/// Sample standard deviation of every atomic energy, if all models were asked.
void Committee::spread(int n_centers)
{
  for (auto &result : results_) result.uncertainties = nullptr;    // posteriors of their own
  results_.front().largest_uncertainty = -1.0;
  const auto n = results_.size();
  if (!info_.atom_uncertainties || static_cast<int>(n) < size()) return;
  uncertainties_.assign(std::max(n_centers, 1), 0.0);
  for (int i = 0; i < n_centers; i++) {
    double mean = 0.0, squares = 0.0;
    for (const auto &result : results_) mean += result.energies[i] / n;
    for (const auto &result : results_) squares += (result.energies[i] - mean) * (result.energies[i] - mean);
    uncertainties_[i] = std::sqrt(squares / (n - 1));
  }
  results_.front().uncertainties = uncertainties_.data();
  if (threshold_ > 0.0 && n_centers > 0)
    results_.front().largest_uncertainty = *std::max_element(uncertainties_.begin(), uncertainties_.end());
}

}    // namespace mlplugins
