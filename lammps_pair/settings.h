// SPDX-License-Identifier: GPL-2.0-only
#ifndef MLPLUGINS_SETTINGS_H
#define MLPLUGINS_SETTINGS_H

#include "evaluator.h"

#include <string>
#include <vector>

namespace mlplugins {

/// The family whose energy is a sum over pairs: it stays one when pairs are left out.
inline const std::string PAIRWISE = "lennard-jones";

/// Read the arguments of `pair_style mlplugins` or `pair_style metatomic`.
/// @throws std::runtime_error naming the keyword, what was expected and what came
Settings parse_settings(const std::vector<std::string> &arguments, double default_threshold);

/// Value of the keyword `inner` for the direct forces of the model itself.
inline const std::string DIRECT = "direct";

/// Settings of the model of the inner steps that the keyword `inner` of `whole` asks for.
Settings inner_settings(const Settings &whole);

/// Atomic number of a chemical symbol or a number; 0 if it is neither.
int atomic_number(const std::string &word);

/// Atomic numbers of the LAMMPS types (index 1 …) from the arguments of `pair_coeff * * …`; 0 for `NULL`.
/// @throws std::runtime_error for a wrong count, an unknown element, or one that is not in the model
std::vector<int> parse_elements(const std::vector<std::string> &words, int n_types, const std::vector<int> &known);

/// Compare a mass (u) with the element's.
/// @returns an empty text if it fits, otherwise a sentence; `wrong` tells whether it is the mass of another element
std::string check_mass(int number, double mass, bool &wrong);

/// Symbols of atomic numbers, separated by blanks.
std::string symbols(const std::vector<int> &numbers);

}    // namespace mlplugins

#endif
