/* What libconvoxel takes for a network: the process of bench/library.py that holds no Python.
 *   library NET.cvx INPUT.bin SECONDS N C H W    INPUT.bin: the float32 numbers of one input
 * Prints, as one line of JSON, the seconds of loading with the first run and of the fastest run, those of planning
 * another size (of half the height), the resident bytes after the runs, and a checksum of the result's bits. */
#define _POSIX_C_SOURCE 199309L
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "convoxel.h"

static double now(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

static void check(convoxel_status status) {
  if (status == CONVOXEL_OK) return;
  fprintf(stderr, "%s\n", convoxel_last_error());
  exit(1);
}

static long resident_bytes(void) {
  long pages = 0;
  FILE* file = fopen("/proc/self/statm", "r");
  if (file == NULL || fscanf(file, "%*s %ld", &pages) != 1) exit(1);
  fclose(file);
  return pages * sysconf(_SC_PAGESIZE);
}

int main(int count, char** words) {
  if (count != 8) return 2;
  convoxel_tensor input = {.axes = 4}, result = {.count = 0};
  input.count = 1;
  for (int i = 0; i < 4; ++i) {
    input.shape[i] = atoll(words[4 + i]);
    input.count *= (size_t)input.shape[i];
  }
  input.data = malloc(input.count * sizeof(float));
  FILE* file = fopen(words[2], "rb");
  if (file == NULL || fread(input.data, sizeof(float), input.count, file) != input.count) return 1;
  fclose(file);

  const double start = now();
  convoxel_program* program = NULL;
  check(convoxel_load_file(words[1], &program));
  check(convoxel_prepare(program, &input, 1, &result, 1));
  result.count = 1;
  for (int i = 0; i < result.axes; ++i) result.count *= (size_t)result.shape[i];
  result.data = malloc(result.count * sizeof(float));
  check(convoxel_run(program, &input, 1, &result, 1));
  const double first = now() - start;

  double fastest = first;
  const double end = now() + atof(words[3]);
  while (now() < end) {
    const double begin = now();
    check(convoxel_run(program, &input, 1, &result, 1));
    const double took = now() - begin;
    if (took < fastest) fastest = took;
  }
  const long resident = resident_bytes();
  uint64_t bits = 0;
  for (size_t i = 0; i < result.count; ++i) {
    uint32_t word;
    memcpy(&word, &result.data[i], sizeof(word));
    bits = bits * 31 + word;
  }
  input.shape[2] /= 2;
  const double begin = now();
  check(convoxel_prepare(program, &input, 1, &result, 1));
  printf("{\"first_s\": %.6f, \"steady_s\": %.6f, \"plan_s\": %.6f, \"resident_bytes\": %ld, \"bits\": \"%016llx\"}\n",
         first, fastest, now() - begin, resident, (unsigned long long)bits);
  convoxel_free(program);
  return 0;
}
