/*
 * The engine that the screens are compared with: it opens the bundled demo (only its files) and
 * answers three turns with exact tokens and times. Turn 1 thinks on large, goes on with small after
 * 6 tokens and answers on large; turn 2 is a long answer with awkward characters; turn 3 fails.
 */
#ifndef TESTS_TUI_PLAY_H
#define TESTS_TUI_PLAY_H

#include "core/engine.h"

/* Fits tui_options.open_engine. */
struct engine *play_open(const struct engine_options *options, struct error *err);

/* Lets go of the model, which lives until here. */
void play_close(void);

#endif
