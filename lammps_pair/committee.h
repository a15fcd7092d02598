// SPDX-License-Identifier: GPL-2.0-only
#ifndef MLPLUGINS_COMMITTEE_H
#define MLPLUGINS_COMMITTEE_H

#include "evaluator.h"

#include <memory>
#include <string>
#include <vector>

namespace mlplugins {

/// The models of a pair style: one, or several whose mean or first drives the run. A file may hold several.
class Committee {
 public:
  /// The models for these settings: those of another copy of the pair style in `owner` if they give the same results.
  /// @throws std::runtime_error (and torch's own errors) with a text that names the file
  static std::shared_ptr<Committee> of(const Settings &settings, int local_rank, const void *owner);

  /// Load all files of the settings.
  /// @throws std::runtime_error (and torch's own errors) with a text that names the file
  Committee(const Settings &settings, int local_rank);

  /// Of all together: the largest cutoff and range, what all of them offer, elements that all know.
  const ModelInfo &info() const { return info_; }
  /// Of each file.
  std::vector<std::string> describe() const;
  /// Whether all run in mode exchange.
  bool can_exchange() const { return can_exchange_; }
  /// Whether no energy depends on more than the neighbours of its atom.
  bool one_layer() const { return one_layer_; }
  /// Number of models.
  int size() const { return info_.n_members; }

  /// Results of the first `count` models, all with respect to the edges of `graph`, until the next call.
  /// Uncertainties, if all models were asked, are the spread of the atomic energies over them.
  const std::vector<Result> &evaluate(const Graph &graph, const Request &request, int count);

  /// Keep a copy of what the results of the last `evaluate` belong to: `graph`, `request`.
  void remember(const Graph &graph, const Request &request);
  /// Whether these are still there: of exactly these atoms, and at least what is asked for.
  bool remembers(const Graph &graph, const Request &request, int count) const;
  /// They are, for another copy of the pair style.
  const std::vector<Result> &remembered() { reused_++; return results_; }
  long evaluations() const { return evaluations_; }
  /// How often results were used again.
  long reused() const { return reused_; }

  /// Whether `heat_flux` is that of what drives: of one file, not of its first member alone.
  bool has_heat_flux() const { return evaluators_.size() == 1 && !(first_drives_ && size() > 1); }
  /// Evaluate, keeping what the heat flux needs.
  void prepare_heat_flux(const Graph &graph, const Request &request)
  {
    valid_ = false;
    evaluators_.front()->evaluate(graph, request);
  }
  /// See Evaluator::keeps_heat_flux.
  bool keeps_heat_flux() const { return evaluators_.front()->keeps_heat_flux(); }
  /// See Evaluator::heat_flux.
  Flux heat_flux(const Graph &graph, const Request &request, const std::vector<double> &velocities, bool copies)
  {
    if (copies) valid_ = false;
    return evaluators_.front()->heat_flux(graph, request, velocities, copies);
  }

 private:
  std::vector<std::unique_ptr<Evaluator>> evaluators_;
  std::vector<std::string> paths_;
  const bool first_drives_;
  const double threshold_;            ///< of uncertainties, negative: none
  ModelInfo info_;
  bool can_exchange_ = true, one_layer_ = true;
  std::vector<Result> results_;
  // models of a shorter cutoff
  Graph shorter_;
  std::vector<std::size_t> kept_;     ///< edges of the whole graph that `shorter_` has
  std::vector<std::vector<double>> gradients_;
  std::vector<double> uncertainties_;
  // what `results_` belong to
  bool valid_ = false;
  Graph graph_;
  Request request_;
  long evaluations_ = 0, reused_ = 0;

  void judge(const ModelInfo &model);
  void combine(const ModelInfo &other);
  const Graph &within(const Graph &graph, const ModelInfo &model);
  void spread(int n_centers);
};

}    // namespace mlplugins

#endif
