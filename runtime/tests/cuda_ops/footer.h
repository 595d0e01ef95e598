
// What the tests call: runs a grid of blocks one after the other. 0 where it ended.
extern "C" char __start_pleiad_shared[] __attribute__((weak));
extern "C" char __stop_pleiad_shared[] __attribute__((weak));

static const Args* emulated_args;

static void emulated_body() {
    ENTRY(*emulated_args);
}

extern "C" int emulated_launch(const void* args, unsigned x, unsigned y, unsigned z) {
    emulated_args = static_cast<const Args*>(args);
    emulation::body = emulated_body;
    gridDim = {x, y, z};
    for (blockIdx.z = 0; blockIdx.z < z; blockIdx.z++) {
        for (blockIdx.y = 0; blockIdx.y < y; blockIdx.y++) {
            for (blockIdx.x = 0; blockIdx.x < x; blockIdx.x++) {
                if (__start_pleiad_shared != nullptr) {
                    memset(__start_pleiad_shared, 0xff, __stop_pleiad_shared - __start_pleiad_shared);
                }
                if (!emulation::run(THREADS)) {
                    return 1;
                }
            }
        }
    }
    return 0;
}
