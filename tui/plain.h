/*
 * The plain line chat: labelled lines, no cursor control, no colours. For --plain, ACCESSIBLE=1,
 * TERM=dumb and whenever there is no terminal; also the accessible mode. With a terminal readline
 * edits the lines; Ctrl-C stops the generation, at the prompt it clears the line and leaves when it
 * comes twice. `:` commands work as in
 * the workbench.
 */
#ifndef TUI_PLAIN_H
#define TUI_PLAIN_H

#include "tui/app.h"

/* Until the end of standard input or :quit. Of the options, script, size, theme, color and tour do
 * not count. -1: the model can't be opened, or (without a terminal) a turn or a command failed; err
 * says which. */
int plain_run(const struct tui_options *options, struct error *err);

#endif
