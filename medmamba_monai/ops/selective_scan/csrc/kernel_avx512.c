/* x86-64 with AVX-512F; compile with -mavx512f -mfma. */
#define SCAN_WIDTH 16
#define SCAN_NAME avx512
#include "kernel.h"
