// SPDX-License-Identifier: GPL-2.0-only

#include "model_file.h"

#include <torch/csrc/jit/runtime/jit_exception.h>

#include <filesystem>
#include <stdexcept>

namespace mta = metatomic_torch;
namespace mts = metatensor_torch;

namespace mlplugins {

namespace {

std::string first_line(const std::string &text)
{
  return text.substr(0, text.find('\n'));
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
  try {
    return mta::read_model_metadata(path);
  } catch (const std::exception &) {
    throw std::runtime_error("'" + path + "' is not a metatomic model, or it is truncated (" +
                             first_line(describe_current_exception()) + "): export or copy it again");
  }
}

std::shared_ptr<mts::Module> load_module(const Settings &settings)
{
  static std::string last_key;
  static std::shared_ptr<mts::Module> last;
  const auto path = std::filesystem::canonical(settings.path);
  const auto written = std::filesystem::last_write_time(path).time_since_epoch().count();
  const std::string key = path.string() + '\n' + std::to_string(written) + '\n' +
      std::to_string(std::filesystem::file_size(path)) + '\n' + settings.extensions + '\n' + settings.device;
  if (last && key == last_key) return last;
  last.reset();
  torch::optional<std::string> extensions;
  if (!settings.extensions.empty()) extensions = settings.extensions;
  try {
    last = std::make_shared<mts::Module>(mta::load_atomistic_model(settings.path, extensions));
  } catch (const std::exception &) {
    throw std::runtime_error("cannot load the model '" + settings.path + "': " + describe_current_exception());
  }
  last_key = key;
  return last;
}

}    // namespace mlplugins
