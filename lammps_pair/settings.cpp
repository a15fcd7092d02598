// SPDX-License-Identifier: GPL-2.0-only

#include "settings.h"

#include "elements.h"

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <filesystem>
#include <functional>
#include <map>
#include <set>
#include <stdexcept>

namespace mlplugins {

namespace {

[[noreturn]] void refuse(const std::string &text)
{
  throw std::runtime_error(text);
}

[[noreturn]] void refuse_value(const std::string &keyword, const std::string &expected, const std::string &got)
{
  refuse("keyword '" + keyword + "': expected " + expected + ", got '" + got + "'");
}

bool on_off(const std::string &keyword, const std::string &value)
{
  if (value == "on" || value == "yes" || value == "true") return true;
  if (value == "off" || value == "no" || value == "false") return false;
  refuse_value(keyword, "on or off", value);
}

double number(const std::string &keyword, const std::string &value)
{
  try {
    std::size_t used = 0;
    const double result = std::stod(value, &used);
    if (used == value.size() && std::isfinite(result)) return result;
  } catch (const std::exception &) {
    // not a number: refused below like the rest
  }
  refuse_value(keyword, "a number", value);
}

Choice parse_choice(const std::string &keyword, const std::string &value)
{
  if (value == "auto") return Choice::automatic;
  return on_off(keyword, value) ? Choice::on : Choice::off;
}

bool parse_exclusions(const std::string &value)
{
  if (value != "allow" && value != "refuse") refuse_value("exclusions", "refuse or allow", value);
  return value == "allow";
}

Mode parse_mode(const std::string &value)
{
  static const std::map<std::string, Mode> modes = {
      {"auto", Mode::automatic}, {"fold", Mode::fold}, {"exchange", Mode::exchange}, {"ghost", Mode::ghost}};
  const auto found = modes.find(value);
  if (found == modes.end()) refuse_value("mode", "auto, fold, exchange or ghost", value);
  return found->second;
}

std::string parse_device(const std::string &value)
{
  const std::string kind = value.substr(0, value.find(':'));
  if (kind != "cpu" && kind != "cuda") refuse_value("device", "cpu, cuda or cuda:N", value);
  const auto index = value.substr(std::min(value.size(), kind.size() + 1));
  if (value.size() > kind.size() && (index.empty() || index.find_first_not_of("0123456789") != std::string::npos))
    refuse_value("device", "cpu, cuda or cuda:N", value);
  return value;
}

void parse_direct(Settings &settings, const std::string &value)
{
  if (value == "forces" || value == "stress") {
    settings.direct_forces = value == "forces";
    settings.direct_stress = value == "stress";
  } else {
    settings.direct_forces = settings.direct_stress = on_off("non_conservative", value);
  }
}

bool parse_drive(const std::string &value)
{
  if (value != "mean" && value != "first") refuse_value("drive", "mean or first", value);
  return value == "first";
}

double positive(const std::string &keyword, const std::string &value)
{
  const double result = number(keyword, value);
  if (result <= 0.0) refuse_value(keyword, "a positive number", value);
  return result;
}

double multiplicity(const std::string &value)
{
  const double result = number("spin", value);
  if (result < 1.0 || result != std::round(result))
    refuse_value("spin", "the multiplicity 2S + 1, a whole number from 1 on", value);
  return result;
}

int whole_number(const std::string &keyword, const std::string &expected, const std::string &value)
{
  if (value.empty() || value.size() > 9 || value.find_first_not_of("0123456789") != std::string::npos)
    refuse_value(keyword, expected, value);
  return std::stoi(value);
}

DeviationSettings &deviation(Settings &settings, const std::string &keyword)
{
  if (settings.deviation.given.empty()) settings.deviation.given = keyword;
  return settings.deviation;
}

using Handler = std::function<void(Settings &, const std::string &)>;

std::string variant(const std::string &value)
{
  return value == "off" ? "" : value;
}

const std::map<std::string, Handler> &handlers()
{
  static const std::map<std::string, Handler> table = {
      {"device", [](Settings &s, const std::string &v) { s.device = parse_device(v); }},
      {"mode", [](Settings &s, const std::string &v) { s.mode = parse_mode(v); }},
      {"extensions", [](Settings &s, const std::string &v) { s.extensions = v; }},
      {"check_consistency",
       [](Settings &s, const std::string &v) { s.check_consistency = on_off("check_consistency", v); }},
      {"non_conservative", parse_direct},
      {"baseline", [](Settings &s, const std::string &v) { s.baseline = parse_choice("baseline", v); }},
      {"atom_baseline", [](Settings &s, const std::string &v) { s.atom_baseline = parse_choice("atom_baseline", v); }},
      {"exclusions", [](Settings &s, const std::string &v) { s.allow_exclusions = parse_exclusions(v); }},
      {"inner", [](Settings &s, const std::string &v) { s.inner = v; }},
      {"charge", [](Settings &s, const std::string &v) { s.charge = number("charge", v); }},
      {"spin", [](Settings &s, const std::string &v) { s.spin = multiplicity(v); }},
      {"drive", [](Settings &s, const std::string &v) { s.drive_first = parse_drive(v); }},
      {"out_file", [](Settings &s, const std::string &v) { deviation(s, "out_file").file = v; }},
      {"out_freq",
       [](Settings &s, const std::string &v) {
         deviation(s, "out_freq").every = whole_number("out_freq", "a number of steps, or 0 for no file", v);
       }},
      {"relative", [](Settings &s, const std::string &v) { deviation(s, "relative").relative = positive("relative", v); }},
      {"relative_v",
       [](Settings &s, const std::string &v) { deviation(s, "relative_v").relative_virial = positive("relative_v", v); }},
      {"stop_above",
       [](Settings &s, const std::string &v) { deviation(s, "stop_above").stop_above = positive("stop_above", v); }},
      {"probes",
       [](Settings &s, const std::string &v) { s.probes = whole_number("probes", "their number, or 0 for all", v); }},
      {"scale", [](Settings &s, const std::string &v) { s.scale = number("scale", v); }},
      {"uncertainty_threshold",
       [](Settings &s, const std::string &v) {
         s.uncertainty_threshold = v == "off" ? -1.0 : number("uncertainty_threshold", v);
       }},
      {"variant", [](Settings &, const std::string &) {}},    // read first: the next four refine it
      {"variant/energy", [](Settings &s, const std::string &v) { s.variant_energy = variant(v); }},
      {"variant/energy_uncertainty", [](Settings &s, const std::string &v) { s.variant_uncertainty = variant(v); }},
      {"variant/non_conservative_forces", [](Settings &s, const std::string &v) { s.variant_forces = variant(v); }},
      {"variant/non_conservative_stress", [](Settings &s, const std::string &v) { s.variant_stress = variant(v); }},
  };
  return table;
}

const std::string ATOMIC = "atomic";    // the only keyword without a value

/// Another model file, and no keyword (a keyword wins over a file of its name).
bool is_file(const std::string &word)
{
  if (word == ATOMIC || handlers().count(word) != 0) return false;
  std::error_code ignored;
  return std::filesystem::exists(word, ignored) || (word.size() > 3 && word.substr(word.size() - 3) == ".pt");
}

}    // namespace

Settings parse_settings(const std::vector<std::string> &arguments, double default_threshold)
{
  if (arguments.empty()) refuse("expected a model file: pair_style mlplugins model.pt [keyword value] ...");
  Settings settings;
  std::size_t first = 0;    // keyword: all before are model files
  while (first < arguments.size() && (first == 0 || is_file(arguments[first]))) {
    settings.paths.push_back(arguments[first]);
    settings.path += (first == 0 ? "" : " ") + arguments[first];
    first++;
  }
  settings.uncertainty_threshold = default_threshold;
  for (std::size_t k = first; k + 1 < arguments.size(); k += arguments[k] == ATOMIC ? 1 : 2)
    if (arguments[k] == "variant")
      settings.variant_energy = settings.variant_uncertainty = settings.variant_forces = settings.variant_stress =
          variant(arguments[k + 1]);
  std::set<std::string> given;
  for (std::size_t k = first; k < arguments.size(); k += 2) {
    if (!given.insert(arguments[k]).second) refuse("keyword '" + arguments[k] + "' is given twice");
    if (arguments[k] == ATOMIC) {
      deviation(settings, ATOMIC).atomic = true;
      k--;    // it has no value
      continue;
    }
    const auto handler = handlers().find(arguments[k]);
    if (handler == handlers().end()) {
      std::string valid;
      for (const auto &entry : handlers()) valid += " " + entry.first;
      refuse("unknown keyword '" + arguments[k] + "' (and no file of this name); valid: " + ATOMIC + valid);
    }
    if (k + 1 == arguments.size()) refuse("keyword '" + arguments[k] + "' has no value");
    handler->second(settings, arguments[k + 1]);
  }
  if (settings.deviation.stop_above > 0.0 && settings.deviation.every == 0)
    refuse("keyword 'stop_above' needs 'out_freq' above 0: the deviation is looked at on these steps");
  if (!settings.inner.empty() && (settings.direct_forces || settings.direct_stress))
    refuse("keyword 'inner': the outer steps need the gradients of the model; leave out 'non_conservative'");
  return settings;
}

Settings inner_settings(const Settings &whole)
{
  Settings inner = whole;
  inner.is_inner = true;
  inner.inner.clear();
  inner.deviation = {};
  inner.deviation.every = 0;
  inner.uncertainty_threshold = -1.0;
  inner.drive_first = false;
  if (whole.inner == DIRECT) {
    inner.direct_forces = inner.direct_stress = true;
  } else {
    inner.paths = {whole.inner};
    inner.path = whole.inner;
    inner.variant_energy = inner.variant_uncertainty = inner.variant_forces = inner.variant_stress = "";
  }
  return inner;
}

int atomic_number(const std::string &word)
{
  for (int z = 1; z <= N_ELEMENTS; z++)
    if (word == ELEMENTS[z - 1].symbol) return z;
  if (word.empty() || word.size() > 9 || word.find_first_not_of("0123456789") != std::string::npos) return 0;
  return std::stoi(word);
}

std::vector<int> parse_elements(const std::vector<std::string> &words, int n_types, const std::vector<int> &known)
{
  if (static_cast<int>(words.size()) != n_types)
    refuse("pair_coeff: expected " + std::to_string(n_types) + " elements after '* *', one per atom type in type "
           "order, got " + std::to_string(words.size()));
  std::vector<int> numbers(n_types + 1, 0);
  for (int type = 1; type <= n_types; type++) {
    const std::string &word = words[type - 1];
    if (word == "NULL") continue;
    numbers[type] = atomic_number(word);
    const bool in_model = std::find(known.begin(), known.end(), numbers[type]) != known.end();
    if (numbers[type] == 0 && !in_model)
      refuse("pair_coeff: '" + word + "' (atom type " + std::to_string(type) +
             ") is neither a chemical symbol nor an atomic number");
    if (!in_model)
      refuse("pair_coeff: element " + word + " (atom type " + std::to_string(type) +
             ") is not in the model; it knows: " + symbols(known));
  }
  return numbers;
}

std::string check_mass(int number, double mass, bool &wrong)
{
  wrong = false;
  if (number < 1 || number > N_ELEMENTS) return "";    // models may number coarse-grained particles
  const Element &own = ELEMENTS[number - 1];
  const double deviation = std::fabs(mass - own.mass);
  const Element *nearest =
      std::min_element(std::begin(ELEMENTS), std::end(ELEMENTS), [mass](const Element &a, const Element &b) {
        return std::fabs(a.mass - mass) < std::fabs(b.mass - mass);
      });
  wrong = nearest != &own && deviation > 0.1 && std::fabs(nearest->mass - mass) < 0.05;
  if (!wrong && deviation <= 0.05 * own.mass) return "";
  char text[160];
  std::snprintf(text, sizeof text, "%s has mass %.6g, expected %.6g", own.symbol, mass, own.mass);
  return wrong ? std::string(text) + "; that is the mass of " + nearest->symbol : text;
}

std::string symbols(const std::vector<int> &numbers)
{
  std::string text;
  for (const int z : numbers)
    text += (text.empty() ? "" : " ") + (z >= 1 && z <= N_ELEMENTS ? ELEMENTS[z - 1].symbol : std::to_string(z));
  return text;
}

}    // namespace mlplugins
