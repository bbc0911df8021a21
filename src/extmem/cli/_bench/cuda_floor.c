/* The same calls of the CUDA driver in C, for comparison in the benchmark of the CUDA device.

   It is compiled when the benchmark runs. No CUDA header is needed: the structures are declared here as in the driver
   API, and the functions are loaded from libcuda.so.1. Times are nanoseconds of CLOCK_MONOTONIC. A failure is returned
   as a negative number: a CUresult, or FAILED_SYSTEM if a system call failed. */

#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#define FAILED_SYSTEM (-1000)
#define OPAQUE_FD 1
#define CONTEXT 1 /* CU_POINTER_ATTRIBUTE_CONTEXT */
#define ORDINAL 9 /* CU_POINTER_ATTRIBUTE_DEVICE_ORDINAL */

typedef int Result;
typedef unsigned long long Pointer; /* CUdeviceptr */
typedef struct { int type; union { int fd; struct { void *handle; const void *name; } win32; const void *object; } handle;
    unsigned long long size; unsigned flags, reserved[16]; } HandleDescription;
typedef struct { unsigned long long offset, size; unsigned flags, reserved[16]; } BufferDescription;

typedef struct {
    int device;
    void *context;
    Result (*push)(void *);
    Result (*pop)(void **);
    Result (*import)(void **, const HandleDescription *);
    Result (*map)(Pointer *, void *, const BufferDescription *);
    Result (*attributes)(unsigned, int *, void **, Pointer);
    Result (*range)(Pointer *, size_t *, Pointer);
    Result (*release)(Pointer);
    Result (*destroy)(void *);
    Result (*let_go)(int);
} Floor;

static int64_t now(void) {
    struct timespec at;
    clock_gettime(CLOCK_MONOTONIC, &at);
    return at.tv_sec * 1000000000LL + at.tv_nsec;
}

static int find(void *library, const char *name, void *into) {
    void *symbol = dlsym(library, name);
    if (symbol != NULL) memcpy(into, &symbol, sizeof symbol);
    return symbol != NULL;
}

/* Retain the primary context of the device with this UUID. Return NULL if there is none. */
Floor *cuda_floor_open(const uint8_t *uuid) {
    void *library = dlopen("libcuda.so.1", RTLD_NOW | RTLD_LOCAL);
    Floor *floor = library ? calloc(1, sizeof *floor) : NULL;
    Result (*init)(unsigned), (*count)(int *), (*get)(int *, int), (*name)(uint8_t *, int), (*retain)(void **, int);
    if (floor == NULL) return NULL;
    if (!find(library, "cuInit", &init) || !find(library, "cuDeviceGetCount", &count) ||
        !find(library, "cuDeviceGet", &get) || !find(library, "cuDeviceGetUuid_v2", &name) ||
        !find(library, "cuDevicePrimaryCtxRetain", &retain) ||
        !find(library, "cuDevicePrimaryCtxRelease_v2", &floor->let_go) ||
        !find(library, "cuCtxPushCurrent_v2", &floor->push) || !find(library, "cuCtxPopCurrent_v2", &floor->pop) ||
        !find(library, "cuImportExternalMemory", &floor->import) ||
        !find(library, "cuExternalMemoryGetMappedBuffer", &floor->map) ||
        !find(library, "cuPointerGetAttributes", &floor->attributes) ||
        !find(library, "cuMemGetAddressRange_v2", &floor->range) || !find(library, "cuMemFree_v2", &floor->release) ||
        !find(library, "cuDestroyExternalMemory", &floor->destroy))
        goto failed;
    int found = 0;
    if (init(0) || count(&found)) goto failed;
    for (int ordinal = 0; ordinal < found; ordinal++) {
        uint8_t known[16];
        if (get(&floor->device, ordinal) || name(known, floor->device)) goto failed;
        if (memcmp(known, uuid, sizeof known) == 0 && retain(&floor->context, floor->device) == 0) return floor;
    }
failed:
    free(floor);
    return NULL;
}

void cuda_floor_close(Floor *floor) {
    if (floor == NULL) return;
    floor->let_go(floor->device);
    free(floor);
}

/* Return the nanoseconds of copying an fd, importing and mapping it, and querying the pointer; then free all. */
int64_t cuda_floor_import(Floor *floor, int fd, uint64_t size, uint32_t flags) {
    HandleDescription handle = {.type = OPAQUE_FD, .size = size, .flags = flags};
    BufferDescription buffer = {.size = size};
    int64_t begin = now();
    int copy = fcntl(fd, F_DUPFD_CLOEXEC, 0);
    if (copy < 0) return FAILED_SYSTEM;
    void *memory = NULL, *context = NULL, *popped;
    Pointer pointer = 0, base = 0;
    size_t length = 0;
    int ordinal = -1, asked[2] = {CONTEXT, ORDINAL};
    void *answers[2] = {&context, &ordinal};
    Result result = floor->push(floor->context);
    if (result) return -result;
    handle.handle.fd = copy;
    result = floor->import(&memory, &handle);
    if (result) {
        close(copy);
        floor->pop(&popped);
        return -result;
    }
    result = floor->map(&pointer, memory, &buffer);
    if (!result) result = floor->attributes(2, asked, answers, pointer);
    if (!result) result = floor->range(&base, &length, pointer);
    floor->pop(&popped);
    int64_t end = now();
    floor->push(floor->context);
    if (pointer) floor->release(pointer);
    floor->destroy(memory);
    floor->pop(&popped);
    return result ? -result : end - begin;
}
