/* The order of work between a Vulkan queue and a CUDA stream in C, for comparison in the benchmark of a GPU's timelines.

   It is compiled when the benchmark runs. No header of Vulkan or CUDA is needed: the few structures are declared here as
   in the specification and the driver API. Times are nanoseconds of CLOCK_MONOTONIC. A failure is returned as a negative
   number: a VkResult, or 10000 less than a negated CUresult. */

#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <limits.h>
#include <linux/futex.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#define OPAQUE_FD 1
#define TIMELINE 1
#define TIMELINE_FD 9 /* CU_EXTERNAL_SEMAPHORE_HANDLE_TYPE_TIMELINE_SEMAPHORE_FD */
#define NON_BLOCKING 1
#define ALL_COMMANDS 0x10000
#define MOST 16 /* number of physical devices that are searched */
#define PATIENCE 5000000000ULL

typedef int32_t Result;
typedef void *Object;
typedef uint64_t Handle;
typedef void (*Function)(void);

typedef struct { uint32_t sType; const void *pNext; const char *name; uint32_t version; const char *engine;
    uint32_t engineVersion, apiVersion; } ApplicationInfo;
typedef struct { uint32_t sType; const void *pNext; uint32_t flags; const ApplicationInfo *application;
    uint32_t layers; const char *const *layerNames; uint32_t extensions; const char *const *extensionNames;
    } InstanceCreateInfo;
typedef struct { uint32_t sType; const void *pNext; uint32_t flags, family, count; const float *priorities;
    } QueueCreateInfo;
typedef struct { uint32_t sType; const void *pNext; uint32_t flags, queues; const QueueCreateInfo *queueInfos;
    uint32_t layers; const char *const *layerNames; uint32_t extensions; const char *const *extensionNames;
    const void *features; } DeviceCreateInfo;
typedef struct { uint32_t sType; void *pNext; uint8_t deviceUUID[16], driverUUID[16], luid[8]; uint32_t mask, valid;
    } IDProperties;
typedef struct { uint32_t sType; void *pNext; uint64_t properties[256]; } Properties2;
typedef struct { uint32_t sType; const void *pNext; uint32_t value; } OneWord; /* features, export types, create flags */
typedef struct { uint32_t sType; const void *pNext; uint32_t type; uint64_t initial; } TypeInfo;
typedef struct { uint32_t sType; const void *pNext; Handle semaphore; uint32_t type; } GetFdInfo;
typedef struct { uint32_t sType; const void *pNext; uint32_t waits; const uint64_t *waitValues; uint32_t signals;
    const uint64_t *signalValues; } TimelineInfo;
typedef struct { uint32_t sType; const void *pNext; uint32_t waits; const Handle *waitSemaphores; const uint32_t *stages;
    uint32_t buffers; const Object *commandBuffers; uint32_t signals; const Handle *signalSemaphores; } SubmitInfo;

typedef struct { int type; union { int fd; struct { void *handle; const void *name; } win32; const void *object; } handle;
    unsigned flags, reserved[16]; } SemaphoreDescription;
typedef struct { unsigned long long value; void *sync; unsigned long long key; unsigned reserved[12], flags,
    more[16]; } SignalParameters;
typedef struct { unsigned long long value; void *sync; struct { unsigned long long key; unsigned timeout; } mutex; unsigned reserved[10], flags,
    more[16]; } WaitParameters;

typedef struct { uint32_t sType; const void *pNext; Handle semaphore; uint64_t value; } SignalInfo;

typedef struct {
    Object instance, device, queue, context, stream, semaphore; /* the last three are CUDA's */
    Handle timeline, fence;
    uint64_t value;
    _Atomic uint64_t word; /* raised by the host function */
    _Atomic uint32_t sequence;
    int gpu;
    Result (*signal_host)(Object, const SignalInfo *);
    Result (*submit)(Object, uint32_t, const SubmitInfo *, Handle);
    Result (*wait_fences)(Object, uint32_t, const Handle *, uint32_t, uint64_t);
    Result (*reset_fences)(Object, uint32_t, const Handle *);
    void (*destroy_semaphore)(Object, Handle, const void *);
    void (*destroy_fence)(Object, Handle, const void *);
    void (*destroy_device)(Object, const void *);
    void (*destroy_instance)(Object, const void *);
    int (*push)(Object), (*pop)(Object *), (*synchronize)(Object), (*destroy_stream)(Object), (*destroy)(Object);
    int (*let_go)(int);
    int (*wait_async)(const Object *, const WaitParameters *, unsigned, Object);
    int (*signal_async)(const Object *, const SignalParameters *, unsigned, Object);
    int (*launch_host)(Object, void (*)(void *), void *);
} Floor;

static int64_t now(void) {
    struct timespec at;
    clock_gettime(CLOCK_MONOTONIC, &at);
    return at.tv_sec * 1000000000LL + at.tv_nsec;
}

static int64_t of_cuda(int result) { return -10000 - result; }

void order_floor_close(Floor *floor) {
    Object popped;
    if (floor == NULL) return;
    if (floor->context != NULL) {
        floor->push(floor->context);
        if (floor->stream != NULL) { floor->synchronize(floor->stream); floor->destroy_stream(floor->stream); }
        if (floor->semaphore != NULL) floor->destroy(floor->semaphore);
        floor->pop(&popped);
        floor->let_go(floor->gpu);
    }
    if (floor->timeline) floor->destroy_semaphore(floor->device, floor->timeline, NULL);
    if (floor->fence) floor->destroy_fence(floor->device, floor->fence, NULL);
    if (floor->device != NULL) floor->destroy_device(floor->device, NULL);
    if (floor->instance != NULL) floor->destroy_instance(floor->instance, NULL);
    free(floor);
}

/* Create a VkDevice with an exportable timeline. Return the timeline's fd, or a negative number. */
static int64_t open_vulkan(Floor *floor, const uint8_t *uuid) {
    void *library = dlopen("libvulkan.so.1", RTLD_NOW | RTLD_LOCAL);
    void *symbol = library ? dlsym(library, "vkGetInstanceProcAddr") : NULL;
    if (symbol == NULL) return -1;
    Function (*find)(Object, const char *);
    memcpy(&find, &symbol, sizeof find);
    ApplicationInfo application = {.apiVersion = 1u << 22 | 2u << 12};
    InstanceCreateInfo instance = {.sType = 1, .application = &application};
    Result (*create_instance)(const InstanceCreateInfo *, const void *, Object *) =
        (Result (*)(const InstanceCreateInfo *, const void *, Object *))find(NULL, "vkCreateInstance");
    Result result = create_instance ? create_instance(&instance, NULL, &floor->instance) : -1;
    if (result) return result;
#define OF_INSTANCE(name, type) ((type)find(floor->instance, name))
    floor->destroy_instance = OF_INSTANCE("vkDestroyInstance", void (*)(Object, const void *));
    Result (*enumerate)(Object, uint32_t *, Object *) =
        OF_INSTANCE("vkEnumeratePhysicalDevices", Result (*)(Object, uint32_t *, Object *));
    void (*describe)(Object, Properties2 *) =
        OF_INSTANCE("vkGetPhysicalDeviceProperties2", void (*)(Object, Properties2 *));
    Result (*create_device)(Object, const DeviceCreateInfo *, const void *, Object *) =
        OF_INSTANCE("vkCreateDevice", Result (*)(Object, const DeviceCreateInfo *, const void *, Object *));
    Function (*command)(Object, const char *) =
        OF_INSTANCE("vkGetDeviceProcAddr", Function (*)(Object, const char *));
    Object found[MOST];
    uint32_t count = MOST;
    if (enumerate(floor->instance, &count, found) < 0) count = 0;
    for (uint32_t i = 0; i < count && floor->device == NULL; i++) {
        IDProperties id = {.sType = 1000071004};
        Properties2 properties = {.sType = 1000059001, .pNext = &id};
        describe(found[i], &properties);
        if (memcmp(id.deviceUUID, uuid, 16)) continue;
        float priority = 1;
        const char *extensions[] = {"VK_KHR_external_semaphore_fd"};
        OneWord timelines = {.sType = 1000207000, .value = 1};
        QueueCreateInfo queue = {.sType = 2, .count = 1, .priorities = &priority};
        DeviceCreateInfo info = {.sType = 3, .pNext = &timelines, .queues = 1, .queueInfos = &queue, .extensions = 1,
                                 .extensionNames = extensions};
        result = create_device(found[i], &info, NULL, &floor->device);
        if (result) return floor->device = NULL, result;
    }
    if (floor->device == NULL) return -1;
#define OF_DEVICE(name, slot) do { Function found_ = command(floor->device, name); \
    memcpy(&(slot), &found_, sizeof found_); } while (0)
    void (*get_queue)(Object, uint32_t, uint32_t, Object *);
    Result (*create_semaphore)(Object, const OneWord *, const void *, Handle *);
    Result (*create_fence)(Object, const OneWord *, const void *, Handle *);
    Result (*get_fd)(Object, const GetFdInfo *, int *);
    OF_DEVICE("vkDestroyDevice", floor->destroy_device);
    OF_DEVICE("vkGetDeviceQueue", get_queue);
    OF_DEVICE("vkCreateSemaphore", create_semaphore);
    OF_DEVICE("vkCreateFence", create_fence);
    OF_DEVICE("vkGetSemaphoreFdKHR", get_fd);
    OF_DEVICE("vkQueueSubmit", floor->submit);
    OF_DEVICE("vkWaitForFences", floor->wait_fences);
    OF_DEVICE("vkResetFences", floor->reset_fences);
    OF_DEVICE("vkDestroySemaphore", floor->destroy_semaphore);
    OF_DEVICE("vkDestroyFence", floor->destroy_fence);
    OF_DEVICE("vkSignalSemaphore", floor->signal_host);
    get_queue(floor->device, 0, 0, &floor->queue);
    OneWord exported = {.sType = 1000077000, .value = OPAQUE_FD};
    TypeInfo type = {.sType = 1000207002, .pNext = &exported, .type = TIMELINE};
    OneWord semaphore = {.sType = 9, .pNext = &type}, fence = {.sType = 8};
    int fd = -1;
    result = create_semaphore(floor->device, &semaphore, NULL, &floor->timeline);
    if (!result) result = create_fence(floor->device, &fence, NULL, &floor->fence);
    GetFdInfo wanted = {.sType = 1000079001, .semaphore = floor->timeline, .type = OPAQUE_FD};
    if (!result) result = get_fd(floor->device, &wanted, &fd);
    return result ? result : fd;
}

/* Import the timeline in the primary context of the same GPU, and create a stream. Return 0, or a negative number. */
static int64_t open_cuda(Floor *floor, const uint8_t *uuid, int fd) {
    void *library = dlopen("libcuda.so.1", RTLD_NOW | RTLD_LOCAL);
    int (*init)(unsigned), (*count)(int *), (*get)(int *, int), (*name)(uint8_t *, int), (*retain)(Object *, int);
    int (*import)(Object *, const SemaphoreDescription *), (*create)(Object *, unsigned);
    const char *names[] = {"cuInit", "cuDeviceGetCount", "cuDeviceGet", "cuDeviceGetUuid_v2", "cuDevicePrimaryCtxRetain",
        "cuImportExternalSemaphore", "cuStreamCreate", "cuCtxPushCurrent_v2", "cuCtxPopCurrent_v2", "cuStreamSynchronize",
        "cuStreamDestroy_v2", "cuDestroyExternalSemaphore", "cuDevicePrimaryCtxRelease_v2",
        "cuWaitExternalSemaphoresAsync", "cuSignalExternalSemaphoresAsync", "cuLaunchHostFunc"};
    void *slots[] = {&init, &count, &get, &name, &retain, &import, &create, &floor->push, &floor->pop,
        &floor->synchronize, &floor->destroy_stream, &floor->destroy, &floor->let_go, &floor->wait_async,
        &floor->signal_async, &floor->launch_host};
    for (size_t i = 0; i < sizeof slots / sizeof *slots; i++) {
        void *symbol = library ? dlsym(library, names[i]) : NULL;
        if (symbol == NULL) return -1;
        memcpy(slots[i], &symbol, sizeof symbol);
    }
    int found = 0, result = init(0);
    if (!result) result = count(&found);
    for (int ordinal = 0; ordinal < found && !result && floor->context == NULL; ordinal++) {
        uint8_t known[16];
        result = get(&floor->gpu, ordinal);
        if (!result) result = name(known, floor->gpu);
        if (!result && !memcmp(known, uuid, sizeof known)) result = retain(&floor->context, floor->gpu);
    }
    if (floor->context == NULL) return result ? of_cuda(result) : -1;
    SemaphoreDescription description = {.type = TIMELINE_FD, .handle.fd = fd};
    Object popped;
    result = floor->push(floor->context);
    if (!result) result = import(&floor->semaphore, &description);
    if (!result) result = create(&floor->stream, NON_BLOCKING);
    floor->pop(&popped);
    return result ? of_cuda(result) : 0;
}

/* Open the GPU with this deviceUUID by both APIs, with one timeline. Return NULL if that fails. */
Floor *order_floor_open(const uint8_t *uuid) {
    Floor *floor = calloc(1, sizeof *floor);
    int64_t fd = floor ? open_vulkan(floor, uuid) : -1;
    if (fd >= 0 && open_cuda(floor, uuid, fd) == 0) return floor;
    order_floor_close(floor);
    return NULL;
}

static int64_t submit(Floor *floor, uint64_t wait, uint64_t signal, Handle fence) {
    uint32_t stage = ALL_COMMANDS;
    TimelineInfo values = {.sType = 1000207003, .waits = wait != 0, .waitValues = &wait, .signals = signal != 0,
                           .signalValues = &signal};
    SubmitInfo info = {.sType = 4, .pNext = &values, .waits = wait != 0, .waitSemaphores = &floor->timeline,
                       .stages = &stage, .signals = signal != 0, .signalSemaphores = &floor->timeline};
    return floor->submit(floor->queue, 1, &info, fence);
}

static int64_t on_stream(Floor *floor, uint64_t wait, uint64_t signal) {
    WaitParameters waited = {.value = wait};
    SignalParameters signaled = {.value = signal};
    int result = floor->wait_async(&floor->semaphore, &waited, 1, floor->stream);
    if (!result) result = floor->signal_async(&floor->semaphore, &signaled, 1, floor->stream);
    return result ? of_cuda(result) : 0;
}

/* Return the time of `rounds` waits and signals on the stream; the waits are satisfied. The stream is not waited for. */
int64_t order_floor_stream(Floor *floor, uint32_t rounds) {
    Object popped;
    floor->push(floor->context);
    int64_t result = 0, begin = now();
    for (uint32_t i = 0; i < rounds && !result; i++, floor->value++)
        result = on_stream(floor, floor->value, floor->value + 1);
    int64_t spent = now() - begin;
    if (!result) result = -floor->synchronize(floor->stream);
    floor->pop(&popped);
    return result ? result : spent;
}

static void raise_word(void *given) {
    Floor *floor = given;
    floor->word++;
    floor->sequence++;
    syscall(SYS_futex, &floor->sequence, FUTEX_WAKE, INT_MAX, NULL, NULL, 0);
}

/* As order_floor_stream; after each signal a host function raises a word and wakes who sleeps on it. */
int64_t order_floor_heard(Floor *floor, uint32_t rounds) {
    Object popped;
    floor->push(floor->context);
    int64_t result = 0, begin = now();
    for (uint32_t i = 0; i < rounds && !result; i++, floor->value++) {
        result = on_stream(floor, floor->value, floor->value + 1);
        int launched = result ? 0 : floor->launch_host(floor->stream, raise_word, floor);
        if (launched) result = of_cuda(launched);
    }
    int64_t spent = now() - begin;
    if (!result) result = -floor->synchronize(floor->stream);
    floor->pop(&popped);
    return result ? result : spent;
}

/* Return the time of `rounds` waits and signals on the stream, each after a pause of a millisecond. Their waits are
   satisfied by the host afterwards, and the stream is waited for. */
int64_t order_floor_paced(Floor *floor, uint32_t rounds) {
    Object popped;
    floor->push(floor->context);
    int64_t result = 0, spent = 0;
    for (uint32_t i = 0; i < rounds && !result; i++, floor->value += 2) {
        usleep(1000);
        int64_t begin = now();
        result = on_stream(floor, floor->value + 1, floor->value + 2);
        spent += now() - begin;
        SignalInfo info = {.sType = 1000207005, .semaphore = floor->timeline, .value = floor->value + 1};
        if (!result) result = floor->signal_host(floor->device, &info);
        if (!result) result = -floor->synchronize(floor->stream);
    }
    floor->pop(&popped);
    return result > 0 ? -result : result ? result : spent;
}

/* Return the time of `rounds` chains: the queue signals, the stream waits and signals, the queue waits, and the host
   waits for the fence of that. */
int64_t order_floor_chain(Floor *floor, uint32_t rounds) {
    Object popped;
    floor->push(floor->context);
    int64_t result = 0, begin = now();
    for (uint32_t i = 0; i < rounds && !result; i++, floor->value += 2) {
        result = submit(floor, 0, floor->value + 1, 0);
        if (!result) result = on_stream(floor, floor->value + 1, floor->value + 2);
        if (!result) result = submit(floor, floor->value + 2, 0, floor->fence);
        if (!result) result = floor->wait_fences(floor->device, 1, &floor->fence, 1, PATIENCE);
        if (!result) result = floor->reset_fences(floor->device, 1, &floor->fence);
    }
    int64_t spent = now() - begin;
    floor->pop(&popped);
    return result > 0 ? -result : result ? result : spent;
}
