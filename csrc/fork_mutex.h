// A mutex that no forked child finds locked: fork() waits until no thread holds one. A child has only the thread that
// forked; a mutex that another thread held at that moment would stay locked in it for ever.
#pragma once

#include <mutex>

namespace convoxel {

class ForkMutex {
 public:
  void lock();
  void unlock();

 private:
  std::mutex mutex_;
};

}  // namespace convoxel
