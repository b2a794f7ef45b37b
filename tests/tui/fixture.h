/*
 * What tests of panes share: a model with the scripted engine behind it, a screen without a
 * terminal, keys as they are typed, and screens compared with tests/tui/screens/.
 * ELASTISCOPE_SAVE_SCREENS=1 writes the screens anew (look at the difference before it is
 * committed).
 */
#ifndef TESTS_TUI_FIXTURE_H
#define TESTS_TUI_FIXTURE_H

#include "base/file.h"
#include "core/model.h"
#include "tests/engine/script.h"
#include "tui/pane.h"
#include "tui/screen.h"
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
/* cmocka needs those above */
#include <cmocka.h>

struct fixture {
	struct script *script;
	struct talk talk;
	struct screen screen;
	struct theme theme;
	uint32_t *counts;
};

#define OK(call)                                                                                   \
	do {                                                                                           \
		struct error err = {0};                                                                    \
		if ((call) < 0)                                                                            \
			fail_msg("%s", err.text);                                                              \
	} while (0)

struct look { // one screen
	const char *name;
	int rows, columns;
	const char *theme, *keys;
};

typedef struct pane *open_function(const struct talk *, struct error *);

/* folder below tests/; budgets: a file of that folder or NULL. */
void open_model(struct fixture *f, const char *folder, const char *budgets, bool lenient);
void close_model(struct fixture *f);
void drain(struct fixture *f);

void open_screen(struct fixture *f, int rows, int columns, const char *theme);
struct canvas canvas_of(struct fixture *f);
void draw(struct fixture *f, struct pane *pane);

/* Keys as a person types them, through the key table; `/word;` searches. */
void press(struct pane *pane, const char *keys);

/* Draws, presses, draws again, and compares the title and the screen with the file of that name. */
void expect_pane(struct fixture *f, struct pane *pane, const struct look *look);
void expect(struct fixture *f, open_function *open, const struct look *looks, int n);

#define EXPECT(f, open, looks) expect(f, open, looks, (int)(sizeof looks / sizeof *looks))

#endif
