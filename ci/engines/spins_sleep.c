/* Puts a short sleep behind each look that found nothing, for the engines of the end-to-end tests.
 *
 * NIXL's progress thread waits by poll() with no time-out in a loop, and vLLM's readers of shared memory by
 * sched_yield(): each keeps one core busy. Two of them on a machine of two cores leave nothing to the rest, and
 * on Linux 6.18.44, whose fair scheduler seems to lose count under rapid yields, all other processes stood for up
 * to 30 s: longer than the lease that a worker of Dynamo has at etcd.
 *
 *   cc -shared -fPIC -O2 -o spins_sleep.so spins_sleep.c; LD_PRELOAD=/path/to/spins_sleep.so engine ...
 */
#define _GNU_SOURCE
#include <errno.h>
#include <poll.h>
#include <time.h>

static void pause_a_moment(void) {
  const struct timespec moment = {0, 200 * 1000};
  const int before = errno;
  nanosleep(&moment, 0);
  errno = before;
}

int sched_yield(void) {
  pause_a_moment();
  return 0;
}

int poll(struct pollfd *fds, nfds_t count, int timeout_ms) {
  const struct timespec limit = {timeout_ms / 1000, timeout_ms % 1000 * 1000000L};
  const int ready = ppoll(fds, count, timeout_ms < 0 ? 0 : &limit, 0);
  if (ready == 0 && timeout_ms == 0) pause_a_moment();
  return ready;
}
