/* One hop between two processes by a futex in shared memory, in C, for comparison in the benchmark of timelines.

   It is compiled when the benchmark runs. Two processes map the same page and call `sync_floor_hops` at the same time,
   one with first = 1. Each round is one store and wake by the first, one by the second. The result is the time of all
   rounds in nanoseconds of CLOCK_MONOTONIC; a failure is FAILED_SYSTEM. */

#define _GNU_SOURCE
#include <errno.h>
#include <linux/futex.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#define FAILED_SYSTEM (-1000)
#define PAGE 4096

typedef struct { volatile uint32_t there, back; } Words;

static int64_t now(void) {
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return time.tv_sec * 1000000000LL + time.tv_nsec;
}

static int set(volatile uint32_t *word, uint32_t value) {
    __atomic_store_n(word, value, __ATOMIC_SEQ_CST);
    return syscall(SYS_futex, word, FUTEX_WAKE, 0x7fffffff, NULL, NULL, 0) < 0;
}

static int await(volatile uint32_t *word, uint32_t value) {
    uint32_t seen;
    while ((int32_t)((seen = __atomic_load_n(word, __ATOMIC_SEQ_CST)) - value) < 0)
        if (syscall(SYS_futex, word, FUTEX_WAIT, seen, NULL, NULL, 0) < 0 && errno != EAGAIN && errno != EINTR)
            return 1;
    return 0;
}

/* fd: a file of at least one page that both processes map. start: the value of both words before. */
int64_t sync_floor_hops(int fd, uint32_t start, uint32_t rounds, int first) {
    Words *words = mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (words == MAP_FAILED)
        return FAILED_SYSTEM;
    int failed = 0;
    int64_t begin = now();
    for (uint32_t value = start + 1; value <= start + rounds && !failed; value++)
        failed = first ? set(&words->there, value) || await(&words->back, value)
                       : await(&words->there, value) || set(&words->back, value);
    int64_t spent = now() - begin;
    munmap(words, PAGE);
    return failed ? FAILED_SYSTEM : spent;
}
