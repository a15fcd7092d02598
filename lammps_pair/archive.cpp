// SPDX-License-Identifier: GPL-2.0-only

#include "archive.h"

#include "format.h"

#include <caffe2/serialize/crc_alt.h>
#include <caffe2/serialize/inline_container.h>

#include <dlfcn.h>

#include <algorithm>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <map>
#include <regex>
#include <set>
#include <sstream>
#include <stdexcept>
#include <vector>

#if defined(__x86_64__) && defined(__GLIBC__)
// these moved into libc with glibc 2.34; under their first version they are found in older ones too (libdl)
__asm__(".symver dlopen, dlopen@GLIBC_2.2.5");
__asm__(".symver dlerror, dlerror@GLIBC_2.2.5");
#endif

namespace mlplugins {

namespace {

/// Little-endian number at `position`; a file that ends before it is truncated.
uint64_t number(const std::string &bytes, std::size_t position, int width)
{
  if (position > bytes.size() || bytes.size() - position < static_cast<std::size_t>(width))
    throw std::runtime_error("its directory is truncated");
  uint64_t value = 0;
  for (int k = width - 1; k >= 0; k--) value = value << 8 | static_cast<unsigned char>(bytes[position + k]);
  return value;
}

std::string read_from(std::ifstream &file, uint64_t start, uint64_t end)
{
  file.seekg(0, std::ios::end);
  if (start > end || end > static_cast<uint64_t>(file.tellg())) throw std::runtime_error("it is truncated");
  std::string bytes(end - start, '\0');
  file.seekg(static_cast<std::streamoff>(start));
  file.read(bytes.data(), static_cast<std::streamsize>(bytes.size()));
  if (!file) throw std::runtime_error("it is truncated");
  return bytes;
}

/// An entry as the archive's directory states it.
struct Stated {
  uint32_t sum;    ///< CRC-32
  uint64_t method, size, start;
};

/// All entries by their names without the archive's folder.
std::map<std::string, Stated> stated_entries(const std::string &path, std::ifstream &file)
{
  const uint64_t size = std::filesystem::file_size(path);
  const uint64_t start = size - std::min<uint64_t>(size, 65557);    // the longest comment, and the record before it
  const std::string tail = read_from(file, start, size);
  const auto end = tail.rfind("PK\5\6");
  if (end == std::string::npos) throw std::runtime_error("it is no archive, or truncated");
  uint64_t length = number(tail, end + 12, 4), first = number(tail, end + 16, 4);
  if (end >= 20 && tail.compare(end - 20, 4, "PK\6\7") == 0) {    // more than 4 GB, or as torch writes them all
    const uint64_t wide = number(tail, end - 12, 8);
    if (wide > size - 56) throw std::runtime_error("its directory is truncated");
    const std::string record = read_from(file, wide, wide + 56);
    length = number(record, 40, 8);
    first = number(record, 48, 8);
  }
  if (first > size || length > size - first) throw std::runtime_error("its directory is truncated");

  const std::string directory = read_from(file, first, first + length);
  std::map<std::string, Stated> entries;
  for (std::size_t at = 0; at < directory.size();) {
    if (directory.compare(at, 4, "PK\1\2") != 0) throw std::runtime_error("its directory is damaged");
    const auto name_size = number(directory, at + 28, 2);
    const std::string name = directory.substr(at + 46, name_size);
    const Stated entry{static_cast<uint32_t>(number(directory, at + 16, 4)), number(directory, at + 10, 2),
                       number(directory, at + 24, 4), number(directory, at + 42, 4)};
    if (!entries.emplace(name.substr(name.find('/') + 1), entry).second)
      throw std::runtime_error("entry '" + name + "' is there twice");
    at += 46 + name_size + number(directory, at + 30, 2) + number(directory, at + 32, 2);
  }
  return entries;
}

/// Bytes of an entry. torch's reader adds up a CRC-32 of its own, slowly: what is not compressed is read without it.
std::string bytes_of(const std::string &name, const Stated &entry, std::ifstream &file,
                     caffe2::serialize::PyTorchStreamReader &reader)
{
  constexpr uint64_t elsewhere = 0xFFFFFFFF, header = 30;    // of more than 4 GB
  if (entry.method != 0 || entry.size == elsewhere || entry.start == elsewhere) {
    const auto [data, size] = reader.getRecord(name);
    return std::string(static_cast<const char *>(data.get()), size);
  }
  const std::string local = read_from(file, entry.start, entry.start + header);
  const uint64_t first = entry.start + header + number(local, 26, 2) + number(local, 28, 2);
  return read_from(file, first, first + entry.size);
}

std::string first_line(const std::string &text)
{
  return text.substr(0, text.find('\n'));
}

}    // namespace

std::string verify_archive(const std::string &path)
{
  std::string where;
  try {
    std::ifstream file(path, std::ios::binary);
    const auto stated = stated_entries(path, file);
    caffe2::serialize::PyTorchStreamReader reader(path);
    std::set<std::string> found, listed;
    for (const auto &[name, entry] : stated) {
      where = " (entry '" + name + "')";
      const auto bytes = bytes_of(name, entry, file, reader);
      if (crc32_fast(bytes.data(), bytes.size()) != entry.sum)
        throw std::runtime_error("its checksum is not that of its bytes");
      if (name == format::MANIFEST) {
        std::istringstream lines(bytes);
        for (std::string line; std::getline(lines, line);) listed.insert(line);
        continue;
      }
      char line[32];
      std::snprintf(line, sizeof line, "%08x %zu ", entry.sum, bytes.size());
      found.insert(line + name);
    }
    if (!stated.count(format::MANIFEST)) return "";
    std::set<std::string> different;
    std::set_symmetric_difference(found.begin(), found.end(), listed.begin(), listed.end(),
                                  std::inserter(different, different.end()));
    if (different.empty()) return "";
    const std::string &line = *different.begin();
    return line.substr(std::min(line.size(), line.find(' ', 9) + 1));
  } catch (const c10::Error &error) {
    throw std::runtime_error("'" + path + "' is not a metatomic model, or it is truncated or damaged" + where + ": " +
                             first_line(error.what_without_backtrace()) + ": copy it again, or export the model again");
  } catch (const std::exception &error) {
    throw std::runtime_error("'" + path + "' is not a metatomic model, or it is truncated or damaged" + where + ": " +
                             error.what() + ": copy it again, or export the model again");
  }
}

std::string load_extensions(const std::string &path, const std::string &directory)
{
  std::string text;
  caffe2::serialize::PyTorchStreamReader reader(path);
  for (const char *record : {"extra/extensions-deps", "extra/extensions"}) {
    if (!reader.hasRecord(record)) continue;
    const auto [data, size] = reader.getRecord(record);
    text.append(static_cast<const char *>(data.get()), size);
  }
  std::vector<std::string> folders;
  if (!directory.empty()) folders.push_back(directory);
  const char *const named = std::getenv("MLPLUGINS_EXTENSIONS");
  std::istringstream parts(named ? named : "");
  for (std::string part; std::getline(parts, part, ':');)
    if (!part.empty()) folders.push_back(part);

  std::string missing;
  const std::regex name_entry("\"name\"\\s*:\\s*\"([A-Za-z0-9_.+-]+)\"");
  for (std::sregex_iterator match(text.begin(), text.end(), name_entry), none; match != none; ++match) {
    const std::string name = (*match)[1], file = "lib" + name + ".so";
    if (name == "mlplugins_ops" || name == "metatensor_torch" || name == "metatomic_torch") continue;
    if (dlopen(file.c_str(), RTLD_NOW | RTLD_NOLOAD)) continue;
    std::string found;
    for (const auto &folder : folders) {
      if (!std::filesystem::is_directory(folder))
        throw std::runtime_error("keyword 'extensions': no such directory: '" + folder + "'");
      for (const auto &entry : std::filesystem::recursive_directory_iterator(folder))
        if (found.empty() && (entry.path().filename() == file || entry.path().filename() == name + ".so"))
          found = entry.path().string();
    }
    if (found.empty())
      missing += (missing.empty() ? "" : ", ") + name;
    else if (!dlopen(found.c_str(), RTLD_NOW | RTLD_GLOBAL))
      throw std::runtime_error("the extension '" + found + "' cannot be loaded: " + dlerror());
  }
  return missing;
}

}    // namespace mlplugins
