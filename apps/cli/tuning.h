// What was measured of this machine at a first start: the CPU kernels and the number of threads that answer soonest. In the user's cache.
#pragma once

#include <filesystem>

#include "client.h"

namespace cli {

std::filesystem::path tuning_file();
/// {machine, isa, threads, measured}; null where there is none, or none of this machine and version.
Json stored_tuning();
/// Measures and stores. What cannot be stored is measured again the next time.
Json tune(sb_engine* engine);

/// An engine for answering: on the CPU with the kernels and threads that were measured to be the best, unless the options name some. The
/// first start measures.
Engine open_tuned_engine(Json options);

}  // namespace cli
