/* Any machine: vectors of 4 floats (SSE2, NEON or plain code). */
#define SCAN_WIDTH 4
#define SCAN_NAME portable
#include "kernel.h"
