// A pool of threads that share the chunks of one piece of work.
//
// Every thread begins with its share of the chunks, the same in every call, and then helps with the others. The result
// must not depend on which thread takes which chunk: every chunk writes its own part of the output. A call from inside
// a chunk, or during another thread's work, runs in the calling thread alone. Exceptions reach the caller. A forked
// child starts its own pool.
#pragma once

#include <cstdint>
#include <functional>

namespace convoxel {

// worker is in [0, threads); it selects the workspace that the chunk may use.
using Chunk = std::function<void(int64_t chunk, int worker)>;

// Calls run(chunk, worker) once for every chunk in [0, chunks), with up to `threads` threads (the caller included).
void parallel_for(int threads, int64_t chunks, const Chunk& run);

}  // namespace convoxel
