// SPDX-License-Identifier: GPL-2.0-only
#ifndef MLPLUGINS_MODEL_FILE_H
#define MLPLUGINS_MODEL_FILE_H

#include "evaluator.h"

#include <metatomic/torch.hpp>

#include <map>
#include <memory>
#include <string>
#include <utility>
#include <vector>

namespace mlplugins {

/// A model in memory, with what the engine adds to the energies of models of ours.
struct LoadedModel {
  std::shared_ptr<metatensor_torch::Module> module;
  torch::Tensor baseline;             ///< composition energy per species, eV, in double; undefined if not ours
  torch::Tensor baselines;            ///< the same of further energies, a row each
  torch::Tensor species_of_number;    ///< index into it of every atomic number
};

/// What mlplugins wrote into the metadata. A wrapper (D3, ...) keeps that of the model inside it.
struct Entries {
  int format = 0;                     ///< 0: none
  std::string family = "metatomic", dtype;
  double cutoff = 0.0;
  int exchange_width = 0;
  bool by_tag = false;
  bool together = false;              ///< energies of atoms are shares of one of all atoms
  bool no_energy = false;             ///< none were learned: energy and gradients are zero
  std::map<std::pair<int, int>, double> closest;    ///< see ModelInfo
  std::vector<SystemOutput> system_outputs;    ///< names and sizes
};

/// What the file says of its model, its checksums having been verified; errors name the file.
metatomic_torch::ModelMetadata read_metadata(const std::string &path);

/// The entries of ours, checked.
Entries read_entries(const std::string &path, const metatomic_torch::ModelMetadata &metadata);

/// The model file, or the module that is in use or was last, if neither the file nor the way of evaluation changed:
/// reading takes a second, and `clear`, a repeated `pair_style` or another copy in a hybrid style would pay it again.
std::shared_ptr<const LoadedModel> load_model(const Settings &settings);

}    // namespace mlplugins

#endif
