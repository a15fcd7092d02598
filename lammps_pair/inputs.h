// SPDX-License-Identifier: GPL-2.0-only
#ifndef MLPLUGINS_INPUTS_H
#define MLPLUGINS_INPUTS_H

#include "evaluator.h"

#include <metatomic/torch.hpp>

#include <string>
#include <vector>

namespace mlplugins {

/// A number that a model is given for the structure as a whole.
struct Input {
  std::string name;       ///< of metatomic: charge, spin_multiplicity
  std::string keyword;    ///< of the pair style
  std::string unit;
  double value;
  bool given;             ///< by the user
};

/// Charge and spin multiplicity, for a model that asks for them.
/// @param metadata  of the file, which says what a model of ours knows or was made for
/// @throws std::runtime_error for other inputs, a value that the model does not know, or one that it does not take
std::vector<Input> structure_inputs(const Settings &settings, metatensor_torch::Module &model,
                                    const metatomic_torch::ModelMetadata &metadata);

/// A number of the system, as metatomic passes it.
metatensor_torch::TensorMap system_data(const std::string &name, double value, torch::TensorOptions options,
                                        const std::string &unit = "");

}    // namespace mlplugins

#endif
