/* Stands in for libnvidia-ml.so.1: two GPUs that read what the file named by STANDIN_NVML says, looked up at every call.
 *
 * Each line is NAME VALUE. NAME is a reading below (`remap_pending 1`), of both GPUs, or with `@INDEX` of one
 * (`lost@1 1`); or `hang`, `fail` or `die` with the function that hangs, answers with an unknown error, or ends the
 * process. Signatures and numbers are those of NVML's public header.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define SUCCESS 0
#define NOT_SUPPORTED 3
#define DRIVER_NOT_LOADED 9
#define GPU_IS_LOST 15
#define UNKNOWN 999

typedef struct { int index; } gpu_t;
static gpu_t gpus[2] = {{0}, {1}};

typedef struct {
    unsigned fieldId, scopeId;
    long long timestamp, latencyUsec;
    unsigned valueType, nvmlReturn;
    union { double d; unsigned ui; unsigned long long ull; long long sll; } value;
} field_t;

typedef struct { unsigned char cluster[16]; unsigned status, clique, state; } fabric_t;
typedef struct {
    char legacy[16];
    unsigned domain, bus, device, pciDeviceId, pciSubSystemId;
    char busId[32];
} pci_t;
typedef struct { unsigned long long total, free, used; } memory_t;
typedef struct { unsigned gpu, memory; } utilization_t;

/* The last line that sets `name` wins; returns 0 where none does. */
static int look(const char *name, char *value, size_t size) {
    const char *path = getenv("STANDIN_NVML");
    FILE *file = path ? fopen(path, "r") : NULL;
    char line[256], key[128], found[128];
    int seen = 0;
    while (file && fgets(line, sizeof line, file))
        if (sscanf(line, "%127s %127s", key, found) == 2 && !strcmp(key, name)) {
            snprintf(value, size, "%s", found);
            seen = 1;
        }
    if (file) fclose(file);
    return seen;
}

static long long reading(const gpu_t *gpu, const char *name, long long otherwise) {
    char value[128], key[128];
    if (gpu) {
        snprintf(key, sizeof key, "%s@%d", name, gpu->index);
        if (look(key, value, sizeof value)) return atoll(value);
    }
    return look(name, value, sizeof value) ? atoll(value) : otherwise;
}

static int enter(const char *function, const gpu_t *gpu) {
    char value[128];
    if (look("hang", value, sizeof value) && !strcmp(value, function)) for (;;) sleep(3600);
    if (look("die", value, sizeof value) && !strcmp(value, function)) _exit(7);
    if (look("fail", value, sizeof value) && !strcmp(value, function)) return UNKNOWN;
    return gpu && reading(gpu, "lost", 0) ? GPU_IS_LOST : SUCCESS;
}

#define BEGIN(gpu) for (int status = enter(__func__, gpu); status;) return status
/* A reading of -1 is one that this GPU does not have. */
#define READ(out, gpu, name, otherwise) do { \
        long long value = reading(gpu, name, otherwise); \
        if (value != -1) *(out) = value; \
        return value == -1 ? NOT_SUPPORTED : SUCCESS; \
    } while (0)

int nvmlInitWithFlags(unsigned flags) { (void)flags; BEGIN(NULL); return reading(NULL, "no_driver", 0) ? DRIVER_NOT_LOADED : SUCCESS; }
int nvmlInit_v2(void) { return nvmlInitWithFlags(0); }
int nvmlShutdown(void) { return SUCCESS; }
const char *nvmlErrorString(int status) { return status == GPU_IS_LOST ? "GPU is lost" : "an error of the stand-in"; }
int nvmlSystemGetDriverVersion(char *out, unsigned size) { BEGIN(NULL); snprintf(out, size, "570.133.20"); return SUCCESS; }
int nvmlDeviceGetCount_v2(unsigned *count) { BEGIN(NULL); READ(count, NULL, "count", 2); }
int nvmlDeviceGetHandleByIndex_v2(unsigned index, gpu_t **out) {
    if (index > 1) return NOT_SUPPORTED;
    BEGIN(&gpus[index]); *out = &gpus[index]; return SUCCESS;
}
int nvmlDeviceGetPciInfo_v3(gpu_t *gpu, pci_t *out) {
    BEGIN(gpu); memset(out, 0, sizeof *out);
    snprintf(out->busId, sizeof out->busId, "00000000:%02X:00.0", 0x39 + gpu->index); return SUCCESS;
}
int nvmlDeviceGetUUID(gpu_t *gpu, char *out, unsigned size) { BEGIN(gpu); snprintf(out, size, "GPU-0000%d", gpu->index); return SUCCESS; }
int nvmlDeviceGetSerial(gpu_t *gpu, char *out, unsigned size) { BEGIN(gpu); snprintf(out, size, "165000%d", gpu->index); return SUCCESS; }
int nvmlDeviceGetName(gpu_t *gpu, char *out, unsigned size) { BEGIN(gpu); snprintf(out, size, "Stand-in GPU"); return SUCCESS; }
int nvmlDeviceGetMemoryInfo(gpu_t *gpu, memory_t *out) { BEGIN(gpu); out->total = 80ull << 30; out->used = 1 << 30; out->free = 79ull << 30; return SUCCESS; }
int nvmlDeviceGetUtilizationRates(gpu_t *gpu, utilization_t *out) { BEGIN(gpu); out->gpu = reading(gpu, "utilization", 0); out->memory = 0; return SUCCESS; }
int nvmlDeviceGetPowerUsage(gpu_t *gpu, unsigned *out) { BEGIN(gpu); READ(out, gpu, "power", 72000); }
int nvmlDeviceGetEnforcedPowerLimit(gpu_t *gpu, unsigned *out) { BEGIN(gpu); READ(out, gpu, "power_limit", 700000); }
int nvmlDeviceGetTemperature(gpu_t *gpu, int sensor, unsigned *out) { (void)sensor; BEGIN(gpu); READ(out, gpu, "temperature", 41); }
int nvmlDeviceGetTemperatureThreshold(gpu_t *gpu, int which, unsigned *out) { BEGIN(gpu); READ(out, gpu, which == 1 ? "slowdown" : "memory_max", which == 1 ? 90 : 95); }
int nvmlDeviceGetComputeRunningProcesses_v3(gpu_t *gpu, unsigned *count, void *out) { (void)out; BEGIN(gpu); *count = 0; return SUCCESS; }
int nvmlDeviceGetGraphicsRunningProcesses_v3(gpu_t *gpu, unsigned *count, void *out) { return nvmlDeviceGetComputeRunningProcesses_v3(gpu, count, out); }
int nvmlDeviceGetEccMode(gpu_t *gpu, int *current, int *pending) { BEGIN(gpu); *current = *pending = reading(gpu, "ecc", 1); return SUCCESS; }
int nvmlDeviceGetTotalEccErrors(gpu_t *gpu, int type, int since, unsigned long long *out) {
    const char *name = type == 0 ? "ecc_corrected" : since == 0 ? "ecc_uncorrected" : "ecc_uncorrected_ever";
    BEGIN(gpu); READ(out, gpu, name, 0);
}
int nvmlDeviceGetRemappedRows(gpu_t *gpu, unsigned *corrected, unsigned *uncorrected, unsigned *pending, unsigned *failed) {
    BEGIN(gpu);
    if (reading(gpu, "remap", 1) == -1) return NOT_SUPPORTED;
    *corrected = 0; *uncorrected = reading(gpu, "remapped", 0);
    *pending = reading(gpu, "remap_pending", 0); *failed = reading(gpu, "remap_failed", 0); return SUCCESS;
}
int nvmlDeviceGetCurrentClocksThrottleReasons(gpu_t *gpu, unsigned long long *out) { BEGIN(gpu); READ(out, gpu, "throttle", 0); }
int nvmlDeviceGetClockInfo(gpu_t *gpu, int which, unsigned *out) { (void)which; BEGIN(gpu); READ(out, gpu, "clock", 1980); }
int nvmlDeviceGetMaxClockInfo(gpu_t *gpu, int which, unsigned *out) { (void)which; BEGIN(gpu); READ(out, gpu, "clock_max", 1980); }
int nvmlDeviceGetCurrPcieLinkGeneration(gpu_t *gpu, unsigned *out) { BEGIN(gpu); READ(out, gpu, "pcie_generation", 5); }
int nvmlDeviceGetMaxPcieLinkGeneration(gpu_t *gpu, unsigned *out) { BEGIN(gpu); READ(out, gpu, "pcie_generation_max", 5); }
int nvmlDeviceGetCurrPcieLinkWidth(gpu_t *gpu, unsigned *out) { BEGIN(gpu); READ(out, gpu, "pcie_width", 16); }
int nvmlDeviceGetMaxPcieLinkWidth(gpu_t *gpu, unsigned *out) { BEGIN(gpu); READ(out, gpu, "pcie_width_max", 16); }
int nvmlDeviceGetPcieReplayCounter(gpu_t *gpu, unsigned *out) { BEGIN(gpu); READ(out, gpu, "pcie_replays", 0); }
int nvmlDeviceGetNvLinkState(gpu_t *gpu, unsigned link, unsigned *out) { BEGIN(gpu); *out = (long long)link < reading(gpu, "nvlinks_up", 18); return SUCCESS; }
int nvmlDeviceGetGpuFabricInfo(gpu_t *gpu, fabric_t *out) {
    BEGIN(gpu); memset(out, 0, sizeof *out);
    out->state = reading(gpu, "fabric_state", 3); out->status = reading(gpu, "fabric_status", 0); return SUCCESS;
}
int nvmlDeviceGetFieldValues(gpu_t *gpu, int count, field_t *fields) {
    static const struct { unsigned id; const char *name; long long otherwise; int wide; } known[] = {
        {230, "recovery_action", 0, 0}, {82, "temperature_memory", 48, 0}, {29, "retired_sbe", -1, 0},
        {30, "retired_dbe", -1, 0}, {31, "retired_pending", -1, 0}, {91, "nvlinks", 18, 0},
        {52, "nvlink_replays", 0, 1}, {59, "nvlink_recoveries", 0, 1},
    };
    BEGIN(gpu);
    for (int i = 0; i < count; i++) {
        fields[i].nvmlReturn = NOT_SUPPORTED;
        for (size_t k = 0; k < sizeof known / sizeof *known; k++) {
            long long value = known[k].id == fields[i].fieldId ? reading(gpu, known[k].name, known[k].otherwise) : -1;
            if (value == -1) continue;
            memset(&fields[i].value, 0xff, sizeof fields[i].value); /* the other bytes of a narrow value are nobody's */
            fields[i].nvmlReturn = SUCCESS;
            fields[i].valueType = known[k].wide ? 3 : 1;
            if (known[k].wide) fields[i].value.ull = value; else fields[i].value.ui = value;
        }
    }
    return SUCCESS;
}
