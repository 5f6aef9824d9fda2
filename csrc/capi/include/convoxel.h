/* Convoxel's engine for programs in C: runs networks that `program.save("net.cvx")` wrote, without Python.
 *
 *   convoxel_program* program = NULL;
 *   if (convoxel_load_file("net.cvx", &program) != CONVOXEL_OK) { puts(convoxel_last_error()); exit(1); }
 *   convoxel_tensor image = {.data = pixels, .count = 3 * 224 * 224, .axes = 4, .shape = {1, 3, 224, 224}};
 *   convoxel_tensor scores = {.data = numbers, .count = 1000};
 *   if (convoxel_run(program, &image, 1, &scores, 1) != CONVOXEL_OK) { puts(convoxel_last_error()); exit(1); }
 *   convoxel_free(program);
 *
 * Tensors. All numbers are float32, dense, channels first: (n, c, w), (n, c, h, w) or (n, c, d, h, w); the last axis
 * runs fastest. Lengths of axes count numbers, sizes of files count bytes. Results have the same bits as the same
 * program's in Python on the same processor, for any number of threads.
 *
 * Sizes. An open axis takes any length that the network accepts. The steps for new sizes are planned when they first
 * come, and those of the 16 latest are kept; the first run also packs weights. Where the steps of a network cannot be
 * written for all sizes at once, its file holds plans for some (`program.save(path, sizes=[...])`); other sizes are
 * refused with a message that names those.
 *
 * Ownership. The library copies what it is given to load; a file that was loaded by its path stays open, may be
 * replaced or deleted, but must not be overwritten in place. The caller owns the memory of tensors; the library reads
 * inputs and writes results during the call alone. Texts that functions return belong to the program, or, the last
 * error, to the thread; nobody frees them.
 *
 * Threads. Any number of threads may call functions with one program at the same time, except that convoxel_free must
 * be the last call with it. The threads of a run are shared by the whole process: while one run uses them, others run
 * in their callers' threads. A forked child may use programs that its parent loaded.
 *
 * Errors. A function that can fail returns CONVOXEL_OK, or a status whose reason convoxel_last_error() tells. No C++
 * exception leaves the library. Files may come from anybody: what they claim is checked before memory is asked for. A
 * file that is cut off while its weights are first read ends the process, as with every mapped file; load its bytes
 * where others may do that.
 *
 * Environment. CONVOXEL_THREADS is the number of threads where no call sets one; CONVOXEL_ISA forces an instruction
 * set, such as avx2.
 */
#ifndef CONVOXEL_H
#define CONVOXEL_H

#include <stddef.h>
#include <stdint.h>

#if defined(_WIN32)
#define CONVOXEL_API
#else
#define CONVOXEL_API __attribute__((visibility("default")))
#endif

#ifdef __cplusplus
extern "C" {
#endif

/* The most axes of a tensor. */
#define CONVOXEL_MOST_AXES 8

/* The length of an axis that only an input decides. */
#define CONVOXEL_OPEN (-1)

typedef enum convoxel_status {
  CONVOXEL_OK = 0,
  CONVOXEL_ARGUMENT = 1,    /* a null pointer, an unknown name, a number out of range */
  CONVOXEL_FILE = 2,        /* the file cannot be read, is damaged, or of a newer format */
  CONVOXEL_SHAPE = 3,       /* the network does not accept inputs of these shapes, or a buffer is too small */
  CONVOXEL_UNSUPPORTED = 4, /* the network has steps that run only in Python */
  CONVOXEL_MEMORY = 5,      /* the system gives no more memory */
  CONVOXEL_INTERNAL = 6     /* a mistake of this library */
} convoxel_status;

/* A loaded network. */
typedef struct convoxel_program convoxel_program;

/* A tensor in the caller's memory. */
typedef struct convoxel_tensor {
  const char* name;                  /* of the input or result; NULL: the one at this place in the order */
  float* data;                       /* inputs are only read */
  size_t count;                      /* how many numbers data holds */
  int axes;                          /* of the shape; of a result, set by the call */
  int64_t shape[CONVOXEL_MOST_AXES]; /* the length of each axis; of a result, set by the call */
} convoxel_tensor;

/* Returns the version of the library, such as "0.1.0". */
CONVOXEL_API const char* convoxel_version(void);

/* Returns the instruction set in use, such as "avx512"; "" where CONVOXEL_ISA names one that the processor lacks. */
CONVOXEL_API const char* convoxel_instruction_set(void);

/* Returns why the last call of this thread failed; "" if none has. Valid until the thread's next failure. */
CONVOXEL_API const char* convoxel_last_error(void);

/* Loads the program in a .cvx file. *program is NULL after a failure.
 * path: the file's name in the system's encoding. */
CONVOXEL_API convoxel_status convoxel_load_file(const char* path, convoxel_program** program);

/* Loads the program in the bytes of a .cvx file, which are copied. *program is NULL after a failure. */
CONVOXEL_API convoxel_status convoxel_load_bytes(const void* bytes, size_t size, convoxel_program** program);

/* Frees a program; NULL is allowed. No other call may use it meanwhile or afterwards. */
CONVOXEL_API void convoxel_free(convoxel_program* program);

/* Return how many inputs, or results, the program has; 0 for NULL. */
CONVOXEL_API size_t convoxel_input_count(const convoxel_program* program);
CONVOXEL_API size_t convoxel_result_count(const convoxel_program* program);

/* Return the name of an input, or result; NULL if there is none at this index. */
CONVOXEL_API const char* convoxel_input_name(const convoxel_program* program, size_t index);
CONVOXEL_API const char* convoxel_result_name(const convoxel_program* program, size_t index);

/* Describe an input, or result, in name, axes and shape of *tensor, with CONVOXEL_OPEN for every axis whose length the
 * inputs decide. data and count are left alone. */
CONVOXEL_API convoxel_status convoxel_input(const convoxel_program* program, size_t index, convoxel_tensor* tensor);
CONVOXEL_API convoxel_status convoxel_result(const convoxel_program* program, size_t index, convoxel_tensor* tensor);

/* Sets how many threads runs of this program use from now on: 1 to 1024, or 0 for all that the process may use, which
 * is the default. */
CONVOXEL_API convoxel_status convoxel_set_threads(convoxel_program* program, int threads);

/* Plans the program for inputs of these shapes, packs weights, and sets axes and shape of each result, so that the
 * caller can make room for it. data and count of all tensors are ignored.
 * inputs, results: as of convoxel_run. */
CONVOXEL_API convoxel_status convoxel_prepare(const convoxel_program* program, const convoxel_tensor* inputs,
                                              size_t input_count, convoxel_tensor* results, size_t result_count);

/* Runs the program.
 * inputs: all inputs, by name, or without names in order. count must be at least the product of the shape.
 * results: all or some of the results, by name, or without names in order. Each is written to data, which must hold
 *   count numbers or more; its axes and shape are set, also if data is too small or NULL, which is CONVOXEL_SHAPE. */
CONVOXEL_API convoxel_status convoxel_run(const convoxel_program* program, const convoxel_tensor* inputs,
                                          size_t input_count, convoxel_tensor* results, size_t result_count);

#ifdef __cplusplus
}
#endif

#endif /* CONVOXEL_H */
