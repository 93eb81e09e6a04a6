/* x86-64 with AVX2 and FMA; compile with -mavx2 -mfma. */
#define SCAN_WIDTH 8
#define SCAN_NAME avx2
#include "kernel.h"
