// SPDX-License-Identifier: GPL-2.0-only
#ifndef MLPLUGINS_ARCHIVE_H
#define MLPLUGINS_ARCHIVE_H

#include <string>

namespace mlplugins {

/// Read every entry of a model file and compare its CRC-32, which torch itself does not, with the archive's directory
/// and, where the exporter left one, with the list in the file.
/// @returns the first entry that is not in that list as it is in the file; empty if all are, or there is no list
/// @throws std::runtime_error that names the file and an entry with a wrong checksum
std::string verify_archive(const std::string &path);

/// Load the TorchScript extensions that the file names from `directory` and from those in MLPLUGINS_EXTENSIONS, and
/// from nowhere else: metatomic's own loader opens whatever absolute path a file states.
/// @returns the names of those that were not found
std::string load_extensions(const std::string &path, const std::string &directory);

}    // namespace mlplugins

#endif
