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
#define POSIX_FD 1 /* CU_MEM_HANDLE_TYPE_POSIX_FILE_DESCRIPTOR */
#define DEVICE 1 /* CU_MEM_LOCATION_TYPE_DEVICE */
#define READ 1 /* CU_MEM_ACCESS_FLAGS_PROT_READ */
#define NOT_SUPPORTED 801 /* CUDA_ERROR_NOT_SUPPORTED */

typedef int Result;
typedef unsigned long long Pointer; /* CUdeviceptr */
typedef struct { int type; union { int fd; struct { void *handle; const void *name; } win32; const void *object; } handle;
    unsigned long long size; unsigned flags, reserved[16]; } HandleDescription;
typedef struct { unsigned long long offset, size; unsigned flags, reserved[16]; } BufferDescription;
typedef struct { struct { int type, id; } location; int flags; } Access;

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
    /* The virtual-memory API. */
    Result (*reserve)(Pointer *, size_t, size_t, Pointer, unsigned long long);
    Result (*unreserve)(Pointer, size_t);
    Result (*import_part)(unsigned long long *, void *, int);
    Result (*release_part)(unsigned long long);
    Result (*map_part)(Pointer, size_t, size_t, unsigned long long, unsigned long long);
    Result (*unmap)(Pointer, size_t);
    Result (*allow)(Pointer, size_t, const Access *, size_t);
    int has_parts;
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
    floor->has_parts =
        find(library, "cuMemAddressReserve", &floor->reserve) && find(library, "cuMemAddressFree", &floor->unreserve) &&
        find(library, "cuMemImportFromShareableHandle", &floor->import_part) &&
        find(library, "cuMemRelease", &floor->release_part) && find(library, "cuMemMap", &floor->map_part) &&
        find(library, "cuMemUnmap", &floor->unmap) && find(library, "cuMemSetAccess", &floor->allow);
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

/* Return the nanoseconds of importing allocations by their fds, side by side into one range of addresses that the
   device may read; then free all. The fds stay open. */
int64_t cuda_floor_import_parts(Floor *floor, const int *fds, const uint64_t *sizes, uint32_t count) {
    if (!floor->has_parts) return -NOT_SUPPORTED;
    void *popped;
    Pointer base = 0, at;
    uint64_t whole = 0;
    uint32_t mapped = 0;
    Access access = {{DEVICE, floor->device}, READ};
    for (uint32_t number = 0; number < count; number++) whole += sizes[number];
    int64_t begin = now();
    Result result = floor->push(floor->context);
    if (result) return -result;
    result = floor->reserve(&base, whole, 0, 0, 0);
    at = base;
    for (; !result && mapped < count; mapped += !result) {
        unsigned long long handle = 0;
        result = floor->import_part(&handle, (void *)(intptr_t)fds[mapped], POSIX_FD);
        if (result) break;
        result = floor->map_part(at, sizes[mapped], 0, handle, 0);
        Result released = floor->release_part(handle);
        if (!result) at += sizes[mapped];
        if (!result && released) {
            mapped++;
            result = released;
            break;
        }
    }
    if (!result) result = floor->allow(base, whole, &access, 1);
    int64_t end = now();
    at = base;
    for (uint32_t number = 0; number < mapped; at += sizes[number], number++) floor->unmap(at, sizes[number]);
    if (base) floor->unreserve(base, whole);
    floor->pop(&popped);
    return result ? -result : end - begin;
}
