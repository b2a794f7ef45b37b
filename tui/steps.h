/*
 * Scripts: one step a line, run between frames. `:command`; `type TEXT`; `key NAME`; `paste TEXT`;
 * `wait idle|turn|token N|text T`; `size WxH`; `screen FILE`; for the tour also `say TEXT` and
 * `rest MS`. `#` begins a comment line. A wait of more than 30 s fails.
 */
#ifndef TUI_STEPS_H
#define TUI_STEPS_H

#include "base/error.h"
#include <stdbool.h>
#include <stdint.h>

struct app;
struct steps;

struct steps *steps_open(const char *path, struct error *err);
struct steps *steps_from(const char *text, const char *name, struct error *err);
void steps_close(struct steps *steps); // takes NULL

enum steps_state { STEPS_WAITING, STEPS_AGAIN, STEPS_DONE };

/* Runs one step if it can be run now. AGAIN = one was run, more may follow. -1: a step failed. */
int steps_run(struct steps *steps, struct app *app, struct error *err);

/* When to look again at the latest (clock_ns). */
uint64_t steps_due(const struct steps *steps);

extern const char tour_text[];

#endif
