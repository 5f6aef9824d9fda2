/* See shim.py. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/types.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

static char root[PATH_MAX];
static long count = 0, at = 0;
static int error = 0, lasting = 0, deadly = 0;

void shim_arm(const char* folder, long k, int number, int stays, int kills) {
  count = 0; at = k; error = number; lasting = stays; deadly = kills;
  snprintf(root, sizeof root, "%s", folder);
}
long shim_count(void) { return count; }

/* Kill the process after so many seconds of processor time. */
int shim_kill_after(double seconds) {
  timer_t timer;
  struct sigevent event = {.sigev_notify = SIGEV_SIGNAL, .sigev_signo = SIGKILL};
  struct itimerspec when = {.it_value = {(time_t)seconds, (long)((seconds - (time_t)seconds) * 1e9) + 1}};
  return timer_create(CLOCK_PROCESS_CPUTIME_ID, &event, &timer) || timer_settime(timer, 0, &when, 0);
}

static int inside(const char* path) {
  char whole[PATH_MAX];
  if (!root[0]) return 0;
  if (path[0] == '/') snprintf(whole, sizeof whole, "%s", path);
  else { if (!getcwd(whole, sizeof whole)) return 0; strncat(whole, "/", sizeof whole - strlen(whole) - 1);
         strncat(whole, path, sizeof whole - strlen(whole) - 1); }
  size_t length = strlen(root);
  return strncmp(whole, root, length) == 0 && (whole[length] == '/' || !whole[length]);
}
static int held(int fd) {
  char link[64], path[PATH_MAX];
  if (!root[0]) return 0;
  snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
  ssize_t n = readlink(link, path, sizeof path - 1);
  if (n < 0) return 0;
  path[n] = 0;
  return inside(path);
}
/* removing stays possible on a full disk, so it fails once at most */
static int fails(int concerned, int removes) {
  if (!concerned) return 0;
  ++count;
  if (!at || count < at || (count > at && (!lasting || removes))) return 0;
  if (deadly) kill(getpid(), SIGKILL);
  errno = error;
  return 1;
}
#define REAL(type, name, ...) \
  static type (*real)(__VA_ARGS__) = 0; if (!real) real = (type (*)(__VA_ARGS__))dlsym(RTLD_NEXT, name)

#define OPENS(NAME) int NAME(const char* path, int flags, ...) { \
  mode_t mode = 0; if (flags & O_CREAT) { va_list list; va_start(list, flags); mode = va_arg(list, mode_t); va_end(list); } \
  REAL(int, #NAME, const char*, int, ...); \
  if (flags & (O_CREAT | O_WRONLY | O_RDWR) && fails(inside(path), 0)) return -1; \
  return real(path, flags, mode); }
OPENS(open) OPENS(open64)
#define OPENATS(NAME) int NAME(int dir, const char* path, int flags, ...) { \
  mode_t mode = 0; if (flags & O_CREAT) { va_list list; va_start(list, flags); mode = va_arg(list, mode_t); va_end(list); } \
  REAL(int, #NAME, int, const char*, int, ...); \
  if (flags & (O_CREAT | O_WRONLY | O_RDWR) && fails(inside(path), 0)) return -1; \
  return real(dir, path, flags, mode); }
OPENATS(openat) OPENATS(openat64)
ssize_t write(int fd, const void* data, size_t size) {
  REAL(ssize_t, "write", int, const void*, size_t); return fails(held(fd), 0) ? -1 : real(fd, data, size); }
ssize_t writev(int fd, const struct iovec* data, int size) {
  REAL(ssize_t, "writev", int, const struct iovec*, int); return fails(held(fd), 0) ? -1 : real(fd, data, size); }
ssize_t pwrite64(int fd, const void* data, size_t size, off64_t begin) {
  REAL(ssize_t, "pwrite64", int, const void*, size_t, off64_t); return fails(held(fd), 0) ? -1 : real(fd, data, size, begin); }
int fsync(int fd) { REAL(int, "fsync", int); return fails(held(fd), 0) ? -1 : real(fd); }
int fdatasync(int fd) { REAL(int, "fdatasync", int); return fails(held(fd), 0) ? -1 : real(fd); }
int ftruncate64(int fd, off64_t size) {
  REAL(int, "ftruncate64", int, off64_t); return fails(held(fd), 0) ? -1 : real(fd, size); }
int rename(const char* from, const char* to) {
  REAL(int, "rename", const char*, const char*); return fails(inside(to), 0) ? -1 : real(from, to); }
int renameat(int a, const char* from, int b, const char* to) {
  REAL(int, "renameat", int, const char*, int, const char*); return fails(inside(to), 0) ? -1 : real(a, from, b, to); }
int mkdir(const char* path, mode_t mode) {
  REAL(int, "mkdir", const char*, mode_t); return fails(inside(path), 0) ? -1 : real(path, mode); }
int unlink(const char* path) { REAL(int, "unlink", const char*); return fails(inside(path), 1) ? -1 : real(path); }
int rmdir(const char* path) { REAL(int, "rmdir", const char*); return fails(inside(path), 1) ? -1 : real(path); }
int unlinkat(int dir, const char* path, int flags) {
  REAL(int, "unlinkat", int, const char*, int); return fails(inside(path), 1) ? -1 : real(dir, path, flags); }
