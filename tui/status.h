/*
 * The status line, all text, and the gauges' lines. The status degrades by width: what matters
 * least goes first.
 */
#ifndef TUI_STATUS_H
#define TUI_STATUS_H

#include "base/text.h"
#include "tui/canvas.h"
#include "tui/talk.h"

/* comparing: the columns of Compare are being written. */
void status_line(const struct talk *talk, bool comparing, int columns, struct text *out);

/* "61M", "4.7", "1.5G": bytes with a unit; -1 = "N/A". */
void status_bytes(int64_t bytes, struct text *out);
/* "96.3", "4.1k", "0" */
void status_rate(double per_second, struct text *out);

/* tok/s by phase and budget: LAYOUT_GAUGE_ROWS rows. */
void status_gauges(const struct talk *talk, const struct canvas *canvas);

/* A letter a token, the newest at the right edge: who wrote it, who read it, why that changed. */
void status_strip(const struct talk *talk, const struct canvas *canvas);

#endif
