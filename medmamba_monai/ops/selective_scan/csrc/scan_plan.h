/* The forward scan as steps of a plan, for calls that do more than scan. */
#ifndef MEDMAMBA_SCAN_PLAN_H
#define MEDMAMBA_SCAN_PLAN_H

#include "scan.h"
#include "threads.h"

/* Adds the steps of a scan, to begin after step `after`, and sets *last to the one that ends it. *memory is to be freed
 * when they are done, whatever this returns: 0, or the code of an error. The problem has to stay where it is. */
int64_t plan_forward(work_plan *plan, const char *variant, const scan_problem *problem, const scan_output *output,
                     int64_t threads, int after, int *last, void **memory);

#endif
