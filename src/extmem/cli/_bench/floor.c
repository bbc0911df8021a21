/* The same Vulkan calls in C, for comparison in the benchmarks of the Vulkan device.

   It is compiled when the benchmark runs. No Vulkan header is needed: the few structures are declared here as in the
   specification, and the commands are loaded from libvulkan.so.1. Times are nanoseconds of CLOCK_MONOTONIC, which all
   processes of the machine share. A failure is returned as a negative number: a VkResult, or FAILED_SYSTEM if a system
   call failed. */

#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#define FAILED_SYSTEM (-1000)
#define OPAQUE_FD 1
#define WHOLE_SIZE (~0ULL)
#define MOST 16 /* number of physical devices that are searched */

typedef int32_t Result;
typedef void *Object; /* VkInstance, VkPhysicalDevice, VkDevice */
typedef uint64_t Handle; /* VkDeviceMemory, VkBuffer */
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
typedef struct { uint32_t sType; void *pNext; uint64_t properties[256]; } Properties2; /* 824 bytes are used */
typedef struct { uint32_t sType; const void *pNext; uint64_t size; uint32_t type; } AllocateInfo;
typedef struct { uint32_t sType; const void *pNext; uint32_t types; } ExternalInfo; /* of an export, or of a buffer */
typedef struct { uint32_t sType; const void *pNext; uint32_t type; int fd; } ImportFdInfo;
typedef struct { uint32_t sType; const void *pNext; Handle memory; uint32_t type; } GetFdInfo;
typedef struct { uint32_t sType; const void *pNext; uint32_t flags; uint64_t size; uint32_t usage, sharing, families;
    const uint32_t *familyNumbers; } BufferCreateInfo;
typedef struct { uint32_t sType; const void *pNext; Handle buffer, memory; uint64_t offset; } BindInfo;

typedef struct { uint32_t sType; void *pNext; uint64_t budget[16], usage[16]; } Budget;
typedef struct { uint32_t sType; void *pNext; uint64_t properties[128]; } MemoryProperties2; /* 520 bytes are used */

typedef struct {
    Object instance, device, physical;
    void (*memory)(Object, MemoryProperties2 *);
    Result (*allocate)(Object, const AllocateInfo *, const void *, Handle *);
    void (*release)(Object, Handle, const void *);
    Result (*get_fd)(Object, const GetFdInfo *, int *);
    Result (*create_buffer)(Object, const BufferCreateInfo *, const void *, Handle *);
    void (*destroy_buffer)(Object, Handle, const void *);
    Result (*bind)(Object, uint32_t, const BindInfo *);
    Result (*map)(Object, Handle, uint64_t, uint64_t, uint32_t, void **);
    void (*destroy_device)(Object, const void *);
    void (*destroy_instance)(Object, const void *);
} Floor;

static int64_t now(void) {
    struct timespec at;
    clock_gettime(CLOCK_MONOTONIC, &at);
    return at.tv_sec * 1000000000LL + at.tv_nsec;
}

void floor_close(Floor *floor) {
    if (floor == NULL) return;
    if (floor->device != NULL) floor->destroy_device(floor->device, NULL);
    if (floor->instance != NULL) floor->destroy_instance(floor->instance, NULL);
    free(floor);
}

/* Create a VkDevice for this deviceUUID, with a queue of its first family. Return NULL if there is none. */
Floor *floor_open(const uint8_t *uuid) {
    void *library = dlopen("libvulkan.so.1", RTLD_NOW | RTLD_LOCAL);
    void *symbol = library ? dlsym(library, "vkGetInstanceProcAddr") : NULL;
    Floor *floor = symbol ? calloc(1, sizeof *floor) : NULL;
    if (floor == NULL) return NULL;
    Function (*find)(Object, const char *);
    memcpy(&find, &symbol, sizeof find);
    ApplicationInfo application = {.apiVersion = 1u << 22 | 1u << 12};
    InstanceCreateInfo instance = {.sType = 1, .application = &application};
    Result (*create_instance)(const InstanceCreateInfo *, const void *, Object *) =
        (Result (*)(const InstanceCreateInfo *, const void *, Object *))find(NULL, "vkCreateInstance");
    if (create_instance == NULL || create_instance(&instance, NULL, &floor->instance)) { free(floor); return NULL; }
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
        const char *extensions[] = {"VK_KHR_external_memory_fd"};
        QueueCreateInfo queue = {.sType = 2, .count = 1, .priorities = &priority};
        DeviceCreateInfo info = {.sType = 3, .queues = 1, .queueInfos = &queue, .extensions = 1,
                                 .extensionNames = extensions};
        if (create_device(found[i], &info, NULL, &floor->device)) floor->device = NULL;
        floor->physical = found[i];
    }
    if (floor->device == NULL) { floor_close(floor); return NULL; }
#define OF_DEVICE(slot, name) do { Function found_ = command(floor->device, name); \
    memcpy(&floor->slot, &found_, sizeof found_); } while (0)
    floor->memory = OF_INSTANCE("vkGetPhysicalDeviceMemoryProperties2", void (*)(Object, MemoryProperties2 *));
    OF_DEVICE(allocate, "vkAllocateMemory");
    OF_DEVICE(release, "vkFreeMemory");
    OF_DEVICE(get_fd, "vkGetMemoryFdKHR");
    OF_DEVICE(create_buffer, "vkCreateBuffer");
    OF_DEVICE(destroy_buffer, "vkDestroyBuffer");
    OF_DEVICE(bind, "vkBindBufferMemory2");
    OF_DEVICE(map, "vkMapMemory");
    OF_DEVICE(destroy_device, "vkDestroyDevice");
    return floor;
}

/* vkAllocateMemory for export. */
static Result export_memory(Floor *floor, uint64_t size, uint32_t type, Handle *memory) {
    ExternalInfo external = {.sType = 1000072002, .types = OPAQUE_FD};
    AllocateInfo info = {.sType = 5, .pNext = &external, .size = size, .type = type};
    return floor->allocate(floor->device, &info, NULL, memory);
}

static Result fd_of(Floor *floor, Handle memory, int *fd) {
    GetFdInfo info = {.sType = 1000074002, .memory = memory, .type = OPAQUE_FD};
    return floor->get_fd(floor->device, &info, fd);
}

/* vkAllocateMemory with an fd, which the call consumes. */
static Result import_memory(Floor *floor, int fd, uint64_t size, uint32_t type, Handle *memory) {
    ImportFdInfo source = {.sType = 1000074000, .type = OPAQUE_FD, .fd = fd};
    AllocateInfo info = {.sType = 5, .pNext = &source, .size = size, .type = type};
    return floor->allocate(floor->device, &info, NULL, memory);
}

static Result create_buffer(Floor *floor, uint64_t size, uint32_t usage, Handle *buffer) {
    ExternalInfo external = {.sType = 1000072000, .types = OPAQUE_FD};
    BufferCreateInfo info = {.sType = 12, .pNext = &external, .size = size, .usage = usage};
    return floor->create_buffer(floor->device, &info, NULL, buffer);
}

static Result bind_buffer(Floor *floor, Handle buffer, Handle memory) {
    BindInfo info = {.sType = 1000157000, .buffer = buffer, .memory = memory};
    return floor->bind(floor->device, 1, &info);
}

typedef struct { uint64_t size, buffer; uint32_t type, usage; } Request;

/* Exporter: return the time from before vkAllocateMemory until the other process has bound a buffer. */
int64_t floor_pass(Floor *floor, int to, uint64_t size, uint32_t type, uint64_t buffer, uint32_t usage) {
    Request request = {.size = size, .buffer = buffer, .type = type, .usage = usage};
    union { struct cmsghdr header; char room[CMSG_SPACE(sizeof(int))]; } control = {0};
    struct iovec part = {.iov_base = &request, .iov_len = sizeof request};
    struct msghdr message = {.msg_iov = &part, .msg_iovlen = 1, .msg_control = &control,
                             .msg_controllen = sizeof control};
    Handle memory = 0;
    int fd = -1;
    int64_t end = FAILED_SYSTEM, start = now();
    Result result = export_memory(floor, size, type, &memory);
    if (result) return result;
    result = fd_of(floor, memory, &fd);
    if (!result) {
        struct cmsghdr *header = CMSG_FIRSTHDR(&message);
        header->cmsg_level = SOL_SOCKET;
        header->cmsg_type = SCM_RIGHTS;
        header->cmsg_len = CMSG_LEN(sizeof fd);
        memcpy(CMSG_DATA(header), &fd, sizeof fd);
        if (sendmsg(to, &message, MSG_NOSIGNAL) != (ssize_t)sizeof request
            || recv(to, &end, sizeof end, 0) != (ssize_t)sizeof end) end = FAILED_SYSTEM;
        close(fd);
    }
    floor->release(floor->device, memory, NULL);
    return result ? result : end < 0 ? end : end - start;
}

/* Importer: import and bind the next payload, free it, then send the time of the binding. Return 0 at the end. */
int64_t floor_take(Floor *floor, int from) {
    Request request;
    union { struct cmsghdr header; char room[CMSG_SPACE(sizeof(int))]; } control = {0};
    struct iovec part = {.iov_base = &request, .iov_len = sizeof request};
    struct msghdr message = {.msg_iov = &part, .msg_iovlen = 1, .msg_control = &control,
                             .msg_controllen = sizeof control};
    Handle memory = 0, buffer = 0;
    int fd = -1;
    ssize_t got = recvmsg(from, &message, MSG_CMSG_CLOEXEC);
    if (got != (ssize_t)sizeof request) return got ? FAILED_SYSTEM : 0;
    struct cmsghdr *header = CMSG_FIRSTHDR(&message);
    if (header == NULL) return FAILED_SYSTEM;
    memcpy(&fd, CMSG_DATA(header), sizeof fd);
    Result result = import_memory(floor, fd, request.size, request.type, &memory);
    if (result) close(fd);
    if (!result) result = create_buffer(floor, request.buffer, request.usage, &buffer);
    if (!result) result = bind_buffer(floor, buffer, memory);
    int64_t end = result ? result : now();
    if (buffer) floor->destroy_buffer(floor->device, buffer, NULL);
    if (memory) floor->release(floor->device, memory, NULL);
    return send(from, &end, sizeof end, MSG_NOSIGNAL) == (ssize_t)sizeof end ? end : FAILED_SYSTEM;
}

/* Import, bind and map a copy of an fd. Creating the buffer and freeing everything are not counted. */
int64_t floor_import(Floor *floor, int fd, uint64_t size, uint32_t type, uint64_t buffer_size, uint32_t usage) {
    Handle memory = 0, buffer = 0;
    void *at = NULL;
    Result result = create_buffer(floor, buffer_size, usage, &buffer);
    if (result) return result;
    int64_t start = now();
    int copy = fcntl(fd, F_DUPFD_CLOEXEC, 0);
    result = copy < 0 ? FAILED_SYSTEM : import_memory(floor, copy, size, type, &memory);
    if (result && copy >= 0) close(copy);
    if (!result) result = bind_buffer(floor, buffer, memory);
    if (!result) result = floor->map(floor->device, memory, 0, WHOLE_SIZE, 0, &at);
    int64_t spent = now() - start;
    floor->destroy_buffer(floor->device, buffer, NULL);
    if (memory) floor->release(floor->device, memory, NULL);
    return result ? result : spent;
}

/* Return the free bytes of a heap for this process, as estimated by VK_EXT_memory_budget; 0 if it is not reported. */
uint64_t floor_budget(Floor *floor, uint32_t heap) {
    Budget budget = {.sType = 1000237000};
    MemoryProperties2 properties = {.sType = 1000059006, .pNext = &budget};
    floor->memory(floor->physical, &properties);
    return heap < 16 && budget.budget[heap] > budget.usage[heap] ? budget.budget[heap] - budget.usage[heap] : 0;
}
