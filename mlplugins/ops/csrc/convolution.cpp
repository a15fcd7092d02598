// SPDX-License-Identifier: BSD-3-Clause
// Op mlplugins::convolution: gather – uvu tensor product with per-edge weights – sum over the neighbours.
// It is linear in h, y and w, so every derivative, of any order, is made of the same two passes.

#include "convolution_kernel.h"

#include <ATen/ATen.h>
#include <ATen/Parallel.h>
#include <ATen/core/dispatch/Dispatcher.h>
#include <torch/csrc/autograd/custom_function.h>
#include <torch/library.h>

#include <algorithm>
#include <array>
#include <vector>

namespace mlplugins {

extern const Kernels<float> float_kernels_generic, float_kernels_avx2, float_kernels_avx512;
extern const Kernels<double> double_kernels_generic, double_kernels_avx2, double_kernels_avx512;

template <> const Kernels<float> &kernels<float>()
{
#ifdef MLPLUGINS_X86
  if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512dq")) return float_kernels_avx512;
  if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")) return float_kernels_avx2;
#endif
  return float_kernels_generic;
}

template <> const Kernels<double> &kernels<double>()
{
#ifdef MLPLUGINS_X86
  if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512dq")) return double_kernels_avx512;
  if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")) return double_kernels_avx2;
#endif
  return double_kernels_generic;
}

namespace {

using at::Tensor;
using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

/// Edges and tables of a convolution, as the op receives them.
struct Graph {
  Tensor centers, neighbors;    // (E,) int64, centers ascending
  int64_t n_centers;
  Tensor paths;                 // (P, 7) int64, the fields of Path
  Tensor entries;               // (C, 2) int64: target, harmonic
  Tensor values;                // (C,) coefficients
};

void check(const Graph &graph, const Tensor &h, const Tensor &y, const Tensor &w)
{
  const int64_t n_edges = graph.centers.size(0);
  TORCH_CHECK(h.dim() == 2 && y.dim() == 2 && w.dim() == 2, "convolution: h, y and w must have two dimensions");
  TORCH_CHECK(graph.neighbors.size(0) == n_edges && y.size(0) == n_edges && w.size(0) == n_edges,
              "convolution: expected one row of y and w per edge (", n_edges, "), got ", y.size(0), " and ", w.size(0));
  TORCH_CHECK(h.scalar_type() == y.scalar_type() && h.scalar_type() == w.scalar_type() &&
                  h.scalar_type() == graph.values.scalar_type(),
              "convolution: h, y, w and the coefficients must have one dtype");
  TORCH_CHECK(h.scalar_type() == at::kFloat || h.scalar_type() == at::kDouble,
              "convolution: expected float32 or float64, got ", h.scalar_type());
  TORCH_CHECK(graph.centers.scalar_type() == at::kLong && graph.neighbors.scalar_type() == at::kLong,
              "convolution: edges must be int64");
  for (const Tensor &t : {y, w, graph.centers, graph.neighbors, graph.paths, graph.entries, graph.values})
    TORCH_CHECK(t.device() == h.device(), "convolution: all tensors must be on one device, got ", h.device(), " and ",
                t.device());
  TORCH_CHECK(graph.paths.dim() == 2 && graph.paths.size(1) == 7 && graph.paths.size(0) > 0 &&
                  graph.entries.dim() == 2 && graph.entries.size(1) == 2 &&
                  graph.values.size(0) == graph.entries.size(0),
              "convolution: malformed tables");
}

/// The op's arguments in the form of the kernels; owns what they point to.
template <typename T> struct Prepared {
  std::vector<int64_t> rows;
  std::vector<Path> paths;
  std::vector<CouplingEntry<T>> entries;
  Tensor h, y, w, neighbors;
  int64_t out_width = 0;
  Convolution<T> convolution;

  Prepared(const Graph &graph, const Tensor &h_, const Tensor &y_, const Tensor &w_)
      : h(h_.contiguous()), y(y_.contiguous()), w(w_.contiguous()), neighbors(graph.neighbors.contiguous())
  {
    set_rows(graph);
    set_tables(graph);
    convolution = {paths.data(), (int64_t) paths.size(), entries.data(), (int64_t) entries.size(), coupling_size,
                   h.size(1), y.size(1), w.size(1), out_width, rows.data(), neighbors.template data_ptr<int64_t>(),
                   h.template data_ptr<T>(), y.template data_ptr<T>(), w.template data_ptr<T>()};
  }

 private:
  int64_t coupling_size = 0;

  void set_rows(const Graph &graph)
  {
    const Tensor sorted = graph.centers.contiguous();
    const int64_t *center = sorted.data_ptr<int64_t>(), *neighbor = neighbors.data_ptr<int64_t>();
    const int64_t n_edges = sorted.size(0), n_nodes = h.size(0);
    rows.assign(graph.n_centers + 1, 0);
    int64_t previous = 0;
    for (int64_t e = 0; e < n_edges; e++) {
      TORCH_CHECK(center[e] >= previous, "convolution: edges must be sorted by centre (edge ", e, ")");
      TORCH_CHECK(center[e] < graph.n_centers, "convolution: centre ", center[e], " of edge ", e, " is not below ",
                  graph.n_centers);
      TORCH_CHECK(neighbor[e] >= 0 && neighbor[e] < n_nodes, "convolution: neighbour ", neighbor[e], " of edge ", e,
                  " is not a node (", n_nodes, ")");
      previous = center[e];
      rows[previous + 1]++;
    }
    for (int64_t i = 0; i < graph.n_centers; i++) rows[i + 1] += rows[i];
  }

  void set_tables(const Graph &graph)
  {
    const Tensor table = graph.paths.contiguous();
    const int64_t *p = table.data_ptr<int64_t>();
    for (int64_t k = 0; k < table.size(0); k++, p += 7) {
      const Path path{p[0], p[1], p[2], p[3], (int32_t) p[4], (int32_t) p[5], (int32_t) p[6]};
      TORCH_CHECK(path.d1 > 0 && path.d1 <= 7 && path.d1 % 2 && path.d3 > 0 && path.d3 <= 7 && path.d3 % 2,
                  "convolution: degrees above 3 are not supported");
      TORCH_CHECK(path.input >= 0 && path.output >= 0 && path.weight >= 0 && path.coupling >= 0 && path.channels > 0,
                  "convolution: malformed path ", k);
      TORCH_CHECK(path.input + path.d1 * path.channels <= h.size(1) && path.weight + path.channels <= w.size(1),
                  "convolution: the rows of h or w are shorter than path ", k, " needs");
      out_width = std::max(out_width, path.output + path.d3 * path.channels);
      coupling_size = std::max(coupling_size, path.coupling + path.d1 * path.d3);
      paths.push_back(path);
    }
    const Tensor index = graph.entries.contiguous(), value = graph.values.contiguous();
    const int64_t *i = index.data_ptr<int64_t>();
    for (int64_t k = 0; k < index.size(0); k++) {
      TORCH_CHECK(i[2 * k] >= 0 && i[2 * k + 1] >= 0 && i[2 * k] < coupling_size && i[2 * k + 1] < y.size(1), "convolution: y has too few harmonics");
      entries.push_back({(int32_t) i[2 * k], (int32_t) i[2 * k + 1], value.data_ptr<T>()[k]});
    }
  }
};

/// Centres are dealt out in equal shares of edges, one per thread.
template <typename F> void over_centers(const std::vector<int64_t> &rows, const F &pass)
{
  const int64_t n = (int64_t) rows.size() - 1;
  const int threads = rows.back() < 512 || at::in_parallel_region() ? 1 : at::get_num_threads();
  if (threads == 1) return pass(0, 0, n);
  at::parallel_for(0, threads, 1, [&](int64_t begin, int64_t end) {
    for (int64_t t = begin; t < end; t++) {
      const auto bound = [&](int64_t k) {
        if (k == 0) return int64_t(0);
        if (k == threads) return n;
        return (int64_t) (std::lower_bound(rows.begin(), rows.end() - 1, rows.back() * k / threads) - rows.begin());
      };
      pass(t, bound(t), bound(t + 1));
    }
  });
}

template <typename T> Tensor forward_pass(const Graph &graph, const Tensor &h, const Tensor &y, const Tensor &w)
{
  const Prepared<T> p(graph, h, y, w);
  Tensor out = at::empty({graph.n_centers, p.out_width}, h.options());
  over_centers(p.rows, [&](int64_t, int64_t first, int64_t last) {
    kernels<T>().forward(p.convolution, first, last, out.data_ptr<T>());
  });
  return out;
}

template <typename T>
std::vector<Tensor> backward_pass(const Graph &graph, const Tensor &g, const Tensor &h, const Tensor &y,
                                  const Tensor &w, std::array<bool, 3> wanted)
{
  const Prepared<T> p(graph, h, y, w);
  const Tensor g_rows = g.contiguous();
  TORCH_CHECK(g_rows.size(0) == graph.n_centers && g_rows.size(1) == p.out_width, "convolution: wrong gradient shape");
  const bool parallel = p.rows.back() >= 512 && !at::in_parallel_region();
  const int64_t threads = parallel ? at::get_num_threads() : 1;
  // one copy per thread: no atomics, and the same bits for a given number of threads
  Tensor gh = wanted[0] ? at::zeros({threads, h.size(0), h.size(1)}, h.options()) : Tensor();
  Tensor gy = wanted[1] ? at::zeros_like(p.y) : Tensor();
  Tensor gw = wanted[2] ? at::zeros_like(p.w) : Tensor();
  over_centers(p.rows, [&](int64_t thread, int64_t first, int64_t last) {
    const Gradients<T> to{wanted[0] ? gh.data_ptr<T>() + thread * h.numel() : nullptr,
                          wanted[1] ? gy.data_ptr<T>() : nullptr, wanted[2] ? gw.data_ptr<T>() : nullptr};
    kernels<T>().backward(p.convolution, first, last, g_rows.data_ptr<T>(), to);
  });
  if (wanted[0]) gh = threads == 1 ? gh.select(0, 0) : gh.sum(0);
  return {gh, gy, gw};
}

Tensor forward_any(const Graph &graph, const Tensor &h, const Tensor &y, const Tensor &w)
{
  check(graph, h, y, w);
  at::AutoDispatchBelowADInplaceOrView guard;
  return h.scalar_type() == at::kFloat ? forward_pass<float>(graph, h, y, w) : forward_pass<double>(graph, h, y, w);
}

variable_list backward_any(const Graph &graph, const Tensor &g, const Tensor &h, const Tensor &y, const Tensor &w,
                           std::array<bool, 3> wanted)
{
  check(graph, h, y, w);
  at::AutoDispatchBelowADInplaceOrView guard;
  return h.scalar_type() == at::kFloat ? backward_pass<float>(graph, g, h, y, w, wanted)
                                       : backward_pass<double>(graph, g, h, y, w, wanted);
}

void save(AutogradContext *context, const Graph &graph, variable_list tensors)
{
  tensors.insert(tensors.end(), {graph.centers, graph.neighbors, graph.paths, graph.entries, graph.values});
  context->save_for_backward(tensors);
  context->saved_data["n_centers"] = graph.n_centers;
}

Graph saved_graph(AutogradContext *context, const variable_list &saved, size_t first)
{
  return {saved[first],     saved[first + 1], context->saved_data["n_centers"].toInt(),
          saved[first + 2], saved[first + 3], saved[first + 4]};
}

variable_list backward_of(const Graph &, const Tensor &g, const Tensor &h, const Tensor &y, const Tensor &w);
Tensor forward_of(const Graph &, const Tensor &h, const Tensor &y, const Tensor &w);

Tensor sum(const Tensor &a, const Tensor &b)
{
  if (!a.defined()) return b;
  return b.defined() ? a + b : a;
}

/// (g, h, y, w) → gradients of ⟨g, m⟩ with respect to h, y, w.
class Backward : public torch::autograd::Function<Backward> {
 public:
  static variable_list forward(AutogradContext *context, const Tensor &g, const Tensor &h, const Tensor &y,
                               const Tensor &w, const Tensor &centers, const Tensor &neighbors, int64_t n_centers,
                               const Tensor &paths, const Tensor &entries, const Tensor &values)
  {
    const Graph graph{centers, neighbors, n_centers, paths, entries, values};
    save(context, graph, {g, h, y, w});
    return backward_any(graph, g, h, y, w, {true, true, true});
  }

  /// Φ = ⟨g, m(h, y, w)⟩ is linear in each argument, so the gradient of ⟨(a, b, c), ∂Φ/∂(h, y, w)⟩ is the gradient
  /// of Φ(g, a, y, w) + Φ(g, h, b, w) + Φ(g, h, y, c).
  static variable_list backward(AutogradContext *context, variable_list v)
  {
    const auto saved = context->get_saved_variables();
    const Tensor &g = saved[0], &h = saved[1], &y = saved[2], &w = saved[3];
    const Graph graph = saved_graph(context, saved, 4);
    Tensor gg, gh, gy, gw;
    if (v[0].defined()) {
      gg = sum(gg, forward_of(graph, v[0], y, w));
      const auto d = backward_of(graph, g, v[0], y, w);
      gy = sum(gy, d[1]), gw = sum(gw, d[2]);
    }
    if (v[1].defined()) {
      gg = sum(gg, forward_of(graph, h, v[1], w));
      const auto d = backward_of(graph, g, h, v[1], w);
      gh = sum(gh, d[0]), gw = sum(gw, d[2]);
    }
    if (v[2].defined()) {
      gg = sum(gg, forward_of(graph, h, y, v[2]));
      const auto d = backward_of(graph, g, h, y, v[2]);
      gh = sum(gh, d[0]), gy = sum(gy, d[1]);
    }
    const Tensor none;
    return {gg, gh, gy, gw, none, none, none, none, none, none};
  }
};

class Forward : public torch::autograd::Function<Forward> {
 public:
  static Tensor forward(AutogradContext *context, const Tensor &h, const Tensor &y, const Tensor &w,
                        const Tensor &centers, const Tensor &neighbors, int64_t n_centers, const Tensor &paths,
                        const Tensor &entries, const Tensor &values)
  {
    const Graph graph{centers, neighbors, n_centers, paths, entries, values};
    save(context, graph, {h, y, w});
    return forward_any(graph, h, y, w);
  }

  static variable_list backward(AutogradContext *context, variable_list g)
  {
    const auto saved = context->get_saved_variables();
    const Graph graph = saved_graph(context, saved, 3);
    const Tensor &h = saved[0], &y = saved[1], &w = saved[2];
    variable_list d;
    if (at::GradMode::is_enabled()) {
      d = backward_of(graph, g[0], h, y, w);
    } else {
      const bool wanted_h = context->needs_input_grad(0);
      d = backward_any(graph, g[0], h, y, w, {wanted_h, context->needs_input_grad(1), context->needs_input_grad(2)});
    }
    const Tensor none;
    return {d[0], d[1], d[2], none, none, none, none, none, none};
  }
};

variable_list backward_of(const Graph &q, const Tensor &g, const Tensor &h, const Tensor &y, const Tensor &w)
{
  return Backward::apply(g, h, y, w, q.centers, q.neighbors, q.n_centers, q.paths, q.entries, q.values);
}

Tensor forward_of(const Graph &q, const Tensor &h, const Tensor &y, const Tensor &w)
{
  return Forward::apply(h, y, w, q.centers, q.neighbors, q.n_centers, q.paths, q.entries, q.values);
}

/// The same in ATen's own operations, for devices that the kernels do not know.
Tensor composed(const Graph &graph, const Tensor &h, const Tensor &y, const Tensor &w)
{
  const Tensor table = graph.paths.cpu().contiguous();
  const int64_t n_paths = table.size(0), n_edges = graph.centers.size(0);
  const int64_t *last = table.data_ptr<int64_t>() + 7 * (n_paths - 1);
  const Tensor basis = at::zeros({y.size(1), last[3] + last[5] * last[6]}, y.options())
                           .index_put({graph.entries.select(1, 1), graph.entries.select(1, 0)}, graph.values);
  const Tensor coupling = y.matmul(basis), h_j = h.index_select(0, graph.neighbors);
  std::vector<Tensor> messages;
  for (int64_t k = 0; k < n_paths; k++) {
    const int64_t *p = table.data_ptr<int64_t>() + 7 * k;
    const int64_t channels = p[4], d1 = p[5], d3 = p[6];
    const Tensor m = coupling.narrow(1, p[3], d3 * d1).reshape({n_edges, d3, d1});
    const Tensor x = h_j.narrow(1, p[0], d1 * channels).reshape({n_edges, d1, channels});
    const Tensor r = w.narrow(1, p[2], channels).unsqueeze(1);
    messages.push_back((m.bmm(x) * r).reshape({n_edges, d3 * channels}));
  }
  const Tensor message = at::cat(messages, 1);
  return at::zeros({graph.n_centers, message.size(1)}, h.options()).index_add(0, graph.centers, message);
}

Tensor convolution(const Tensor &h, const Tensor &y, const Tensor &w, at::TensorList edges, int64_t n_centers,
                   at::TensorList tables)
{
  TORCH_CHECK(edges.size() == 2, "convolution: edges are (centers, neighbors), got ", edges.size(), " tensors");
  TORCH_CHECK(tables.size() == 3, "convolution: tables are (paths, entries, values), got ", tables.size(), " tensors");
  const Graph graph{edges[0], edges[1], n_centers, tables[0], tables[1], tables[2]};
  check(graph, h, y, w);
  return h.is_cpu() ? forward_of(graph, h, y, w) : composed(graph, h, y, w);
}

}    // namespace

namespace {
/// Define the op unless this process has one already: a second definition would end the process.
bool define()
{
  if (c10::Dispatcher::singleton().findSchema({"mlplugins::convolution", ""})) return false;
  static torch::Library library(torch::Library::FRAGMENT, "mlplugins", std::nullopt, __FILE__, __LINE__);
  library.def("convolution(Tensor h, Tensor y, Tensor w, Tensor[] edges, int n_centers, Tensor[] tables) -> Tensor");
  library.impl("convolution", torch::dispatch(c10::DispatchKey::CompositeImplicitAutograd, TORCH_FN(convolution)));
  return true;
}

[[maybe_unused]] const bool defined = define();
}    // namespace

}    // namespace mlplugins
