// SPDX-License-Identifier: GPL-2.0-only

#include "inputs.h"

#include "format.h"

#include <algorithm>
#include <cmath>
#include <sstream>
#include <stdexcept>

namespace mta = metatomic_torch;
namespace mts = metatensor_torch;

namespace mlplugins {

namespace {

std::string shown(double value)
{
  std::ostringstream text;
  text << value;
  return text.str();
}

/// Numbers after `skip` characters of an entry of ours.
std::vector<double> numbers(const std::string &path, const std::string &key, const std::string &text, std::size_t skip)
{
  std::vector<double> found;
  std::istringstream words(text.substr(skip));
  for (std::string word; words >> word;) try {
      found.push_back(std::stod(word));
    } catch (const std::exception &) {
      found.clear();
      break;
    }
  if (found.size() == (skip ? 1 : 2)) return found;
  throw std::runtime_error("'" + path + "' is damaged: its metadata say " + key + " = '" + text.substr(0, 60) +
                           "'; copy it again, or export the model again");
}

/// A keyword for a model that does not take it: fine if it was made for this value.
void refuse_unless_made_for(const Input &input, const Settings &settings, const std::string &key,
                            const std::string &entry)
{
  const std::string head = "keyword '" + input.keyword + "': '" + settings.path + "' ";
  if (entry.empty() || entry[0] != '=')
    throw std::runtime_error(head + "takes no " + input.keyword + " of a structure; leave the keyword out");
  const double own = numbers(settings.path, key, entry, 1)[0];
  if (own != input.value)
    throw std::runtime_error(head + "was converted for " + input.keyword + " " + shown(own) + ", not " +
                             shown(input.value) + "; convert it without --" + input.keyword);
}

void require_known(const Input &input, const Settings &settings, const std::string &key, const std::string &entry)
{
  if (entry.empty()) return;    // a model of others does not say
  const auto ends = numbers(settings.path, key, entry, 0);
  const bool whole = !std::isfinite(ends[0]) || input.value == std::round(input.value);
  if (input.value >= ends[0] && input.value <= ends[1] && whole) return;
  throw std::runtime_error("keyword '" + input.keyword + "': the model knows whole numbers from " + shown(ends[0]) +
                           " to " + shown(ends[1]) + ", got " + shown(input.value));
}

}    // namespace

std::vector<Input> structure_inputs(const Settings &settings, mts::Module &model, const mta::ModelMetadata &metadata)
{
  std::vector<std::string> requested;
  for (const auto &item : model.get_method("requested_inputs")({}, {{"use_new_names", true}}).toGenericDict())
    requested.push_back(item.key().toStringRef());
  const auto entry = [&](const std::string &key) {
    const auto found = metadata->extra.find(key);
    return found == metadata->extra.end() ? std::string() : std::string(found->value());
  };
  const struct {
    Input input;
    std::string key;
  } known[] = {
      {{"charge", "charge", "e", settings.charge.value_or(0.0), settings.charge.has_value()}, format::CHARGE},
      {{"spin_multiplicity", "spin", "", settings.spin.value_or(1.0), settings.spin.has_value()}, format::SPIN},
  };
  std::vector<Input> inputs;
  for (const auto &[input, key] : known) {
    if (std::find(requested.begin(), requested.end(), input.name) != requested.end()) {
      require_known(input, settings, key, entry(key));
      inputs.push_back(input);
    } else if (input.given && !settings.is_inner) {    // it is one of the whole model's
      refuse_unless_made_for(input, settings, key, entry(key));
    }
  }
  for (const auto &name : requested)
    if (name != "charge" && name != "spin_multiplicity")
      throw std::runtime_error("'" + settings.path + "' needs an input that LAMMPS does not have: '" + name + "'");
  return inputs;
}

mts::TensorMap system_data(const std::string &name, double value, torch::TensorOptions options, const std::string &unit)
{
  const auto zero = torch::zeros({1, 1}, options.dtype(torch::kInt));
  const auto labels = [&zero](const std::string &title) {
    return torch::make_intrusive<mts::LabelsHolder>(std::vector<std::string>{title}, zero, metatensor::assume_unique{});
  };
  const auto block = torch::make_intrusive<mts::TensorBlockHolder>(torch::full({1, 1}, value, options), labels("system"),
                                                                   std::vector<mts::Labels>{}, labels(name));
  auto map = torch::make_intrusive<mts::TensorMapHolder>(labels("_"), std::vector<mts::TensorBlock>{block});
  if (!unit.empty()) map->set_info("unit", unit);
  return map;
}

}    // namespace mlplugins
