// SPDX-License-Identifier: GPL-2.0-only
#ifndef MLPLUGINS_MODEL_FILE_H
#define MLPLUGINS_MODEL_FILE_H

#include "evaluator.h"

#include <metatomic/torch.hpp>

#include <memory>
#include <string>

namespace mlplugins {

/// What the file says of its model; errors name the file.
metatomic_torch::ModelMetadata read_metadata(const std::string &path);

/// The model file, or the module of the last call if nothing changed: reading takes a second, and `clear` or a
/// repeated `pair_style` would pay it again.
std::shared_ptr<metatensor_torch::Module> load_module(const Settings &settings);

}    // namespace mlplugins

#endif
