// SPDX-License-Identifier: GPL-2.0-only
#ifndef LMP_PAIR_ATTEMPT_H
#define LMP_PAIR_ATTEMPT_H

#include "evaluator.h"
#include "pair_mlplugins.h"

#include "exceptions.h"

#include <string>

namespace LAMMPS_NS {

/// The wall between exceptions and LAMMPS: LAMMPS' own pass, of all others the text is returned, so that the
/// caller reports it outside the handler.
template <class Work> std::string PairMLPlugins::attempt(Work &&work)
{
  try {
    work();
    return "";
  } catch (const LAMMPSException &) {
    throw;
  } catch (...) {
    return mlplugins::describe_current_exception();
  }
}

}    // namespace LAMMPS_NS

#endif
