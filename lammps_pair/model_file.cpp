// SPDX-License-Identifier: GPL-2.0-only

#include "model_file.h"

#include "archive.h"
#include "format.h"

#include <torch/csrc/jit/runtime/jit_exception.h>

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <filesystem>
#include <functional>
#include <map>
#include <sstream>
#include <stdexcept>

namespace mta = metatomic_torch;
namespace mts = metatensor_torch;

namespace mlplugins {

namespace {

/// Says what is wrong by itself.
struct Damaged : std::runtime_error {
  using std::runtime_error::runtime_error;
};

/// Whether the module is ours, and not a wrapper that kept our metadata.
bool is_ours(const torch::jit::Module &module)
{
  std::string name = module.type()->name() ? module.type()->name()->qualifiedName() : "";
  const auto mangled = name.find("___torch_mangle_");
  if (mangled != std::string::npos) name.erase(mangled, name.find('.', mangled) + 1 - mangled);
  return name == format::MODULE || name == format::MODULE_BEFORE_4;
}

/// A number that the metadata must hold, within bounds.
double entry(const std::string &path, const mta::ModelMetadata &metadata, const std::string &key, double low, double high)
{
  const auto found = metadata->extra.find(key);
  const std::string text = found == metadata->extra.end() ? "" : found->value();
  try {
    std::size_t used = 0;
    const double value = std::stod(text, &used);
    if (used == text.size() && value >= low && value <= high) return value;
  } catch (const std::exception &) {
    // not a number: refused below like the rest
  }
  throw Damaged("'" + path + "' is damaged: its metadata say " + key + " = '" +
                           text.substr(0, 60) + "'; copy it again, or export the model again");
}

}    // namespace

std::string describe_current_exception()
{
  std::string text;
  try {
    throw;
  } catch (const torch::jit::JITException &error) {
    const auto original = error.getOriginalMsg();
    text = original ? *original : error.what();
  } catch (const c10::Error &error) {
    text = error.what_without_backtrace();
  } catch (const std::exception &error) {
    text = error.what();
  } catch (...) {
    text = "unknown exception";
  }
  // the TorchScript interpreter puts its traceback first and the reason last
  const auto reason = text.rfind("RuntimeError: ");
  if (reason != std::string::npos) text = text.substr(reason);
  while (!text.empty() && std::isspace(static_cast<unsigned char>(text.back()))) text.pop_back();
  return text;
}

mta::ModelMetadata read_metadata(const std::string &path)
{
  if (!std::filesystem::is_regular_file(path)) throw std::runtime_error("no such model file: '" + path + "'");
  const auto changed = verify_archive(path);
  try {
    auto metadata = mta::read_model_metadata(path);
    read_entries(path, metadata);    // of a newer format, rather than damaged
    if (!changed.empty())
      throw Damaged("'" + path + "' is damaged: its entry '" + changed + "' is not the one that was exported; copy it "
                    "again, or export the model again");
    return metadata;
  } catch (const Damaged &) {
    throw;
  } catch (const std::exception &) {
    const auto reason = describe_current_exception();
    throw std::runtime_error("'" + path + "' is not a metatomic model, or it is truncated (" +
                             reason.substr(0, reason.find('\n')) + "): export or copy it again");
  }
}

Entries read_entries(const std::string &path, const mta::ModelMetadata &metadata)
{
  const auto text = [&](const std::string &key, const std::string &otherwise) {
    const auto found = metadata->extra.find(key);
    return found == metadata->extra.end() ? otherwise : std::string(found->value());
  };
  Entries entries;
  if (text(format::FORMAT, "").empty()) return entries;
  entries.format = static_cast<int>(entry(path, metadata, format::FORMAT, 1, 1e6));
  if (entries.format > format::NEWEST)
    throw Damaged("'" + path + "' was written by a newer mlplugins (file format " +
                             std::to_string(entries.format) + ", this one reads up to " +
                             std::to_string(format::NEWEST) + "): upgrade mlplugins and run `mlplugins build`");
  entries.family = text(format::FAMILY, "mlplugins");
  entries.dtype = text(format::DTYPE, "");
  entries.cutoff = entry(path, metadata, format::CUTOFF, 1e-6, 1e4);
  entries.exchange_width = static_cast<int>(entry(path, metadata, format::EXCHANGE_WIDTH, 0, 1e6));
  entries.no_energy = text(format::ENERGY, "") == "none";
  entries.by_tag = text(format::ATOM_ORDER, "") == format::BY_TAG;
  entries.together = text(format::TOGETHER, "") == format::ALL_ATOMS;
  std::istringstream pairs(text(format::CLOSEST, ""));
  for (std::string word; pairs >> word;) {
    int first = 0, second = 0;
    double distance = 0.0;
    if (std::sscanf(word.c_str(), "%d-%d:%lf", &first, &second, &distance) == 3 && distance > 0.0)
      entries.closest[{std::min(first, second), std::max(first, second)}] = distance;
  }
  std::istringstream words(text(format::SYSTEM_OUTPUTS, ""));
  for (std::string word; words >> word;) {
    const auto colon = word.rfind(':');
    const int size = colon == std::string::npos ? 0 : std::atoi(word.c_str() + colon + 1);
    if (size <= 0)
      throw Damaged("'" + path + "' is damaged: its metadata say " + format::SYSTEM_OUTPUTS + " = '" + word +
                    "'; copy it again, or export the model again");
    entries.system_outputs.push_back({word.substr(0, colon), "", size, false});
  }
  return entries;
}

namespace {

/// File, time of writing, size, device, and the way of evaluation, which changes the baseline inside the module: not
/// that of a model of ours, whose direct forces are evaluated like its gradients.
std::string key_of(const Settings &s)
{
  const auto path = std::filesystem::canonical(s.path);
  const auto written = std::filesystem::last_write_time(path).time_since_epoch().count();
  std::string key = path.string() + '\n' + std::to_string(written) + '\n' + std::to_string(std::filesystem::file_size(path));
  for (const auto &text : {s.extensions, s.device, s.variant_energy, s.variant_forces, s.variant_stress}) key += '\n' + text;
  const bool alike = s.direct_forces == s.direct_stress && !s.check_consistency && s.variant_energy.empty() &&
      s.variant_forces.empty() && s.variant_stress.empty();
  if (!alike)
    for (const bool flag : {s.direct_forces, s.direct_stress, s.check_consistency}) key += flag ? '1' : '0';
  return key;
}

}    // namespace

std::string identity(const Settings &settings)
{
  std::ostringstream key;
  key.precision(17);
  for (const auto &path : settings.paths) {
    Settings own = settings;
    own.path = path;
    key << key_of(own) << '\n';
  }
  key << settings.direct_forces << settings.direct_stress << settings.check_consistency << settings.drive_first << ' '
      << settings.variant_uncertainty << ' ' << settings.uncertainty_threshold << ' ' << settings.probes;
  for (const auto &given : {settings.charge, settings.spin}) key << ' ' << given.has_value() << ' ' << given.value_or(0.0);
  return key.str();
}

std::shared_ptr<const LoadedModel> load_model(const Settings &settings)
{
  static std::map<std::string, std::weak_ptr<const LoadedModel>> known;
  static std::shared_ptr<const LoadedModel> last;
  const std::string key = key_of(settings);
  const auto found = known[key].lock();
  if (found) return last = found;
  last.reset();
  const auto loaded = std::make_shared<LoadedModel>();
  std::string missing;
  try {
    missing = load_extensions(settings.path, settings.extensions);
    if (missing.empty()) mta::check_atomistic_model(settings.path);    // which warns of those
    loaded->module = std::make_shared<mts::Module>(torch::jit::load(settings.path));
    const auto inner = loaded->module->attr("module").toModule();
    if (is_ours(inner)) {
      loaded->baseline = inner.attr("baseline").toTensor().to(torch::kCPU, torch::kDouble).clone();
      loaded->baselines = inner.hasattr("baselines")
          ? inner.attr("baselines").toTensor().to(torch::kCPU, torch::kDouble).clone()
          : torch::zeros({0, loaded->baseline.size(0)}, torch::kDouble);
      loaded->species_of_number = inner.attr("species_of_number").toTensor().to(torch::kCPU, torch::kLong).clone();
    }
  } catch (const std::exception &) {
    if (!missing.empty())
      missing = "; the extensions " + missing + ", which the file names, were not found: name their directory with the "
                "keyword 'extensions' or in MLPLUGINS_EXTENSIONS";
    throw std::runtime_error("cannot load the model '" + settings.path + "': " + describe_current_exception() + missing);
  }
  known[key] = last = loaded;
  return last;
}

}    // namespace mlplugins
