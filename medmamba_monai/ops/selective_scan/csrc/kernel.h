/* One instruction set's kernels, from one source: include with SCAN_WIDTH and SCAN_NAME defined. */
#include "backward.h"
#include "forward.h"
#include "winograd.h"

#define SCAN_STRING_OF(name) #name
#define SCAN_STRING(name) SCAN_STRING_OF(name)
#define SCAN_KERNEL_OF(name) scan_kernel_##name
#define SCAN_KERNEL(name) SCAN_KERNEL_OF(name)

static const network_kernel network = {
    prepare, product, tiles_in, multiply, tiles_out, normalise, depthwise, multiply_add,
};

const scan_kernel SCAN_KERNEL(SCAN_NAME) = {
    SCAN_STRING(SCAN_NAME), SCAN_WIDTH, forward_scratch, forward, backward_scratch, backward,
    &network,
};
