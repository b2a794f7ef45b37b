/*
 * The prompts that Tab offers on an empty line: the user's own, a file each in
 * $XDG_CONFIG_HOME/elastiscope/prompts, then showcase.json beside the model, categories -> lists of
 * {prompt, answer, ...}.
 */
#ifndef TUI_SHOWCASE_H
#define TUI_SHOWCASE_H

#include "base/error.h"

struct showcase_prompt {
	char *prompt, *note; // note: the category in words, and the right answer
};

struct showcase {
	struct showcase_prompt *prompts;
	int n_prompts;
};

/* NULL and err when a file is there and wrong; an empty one when there is none. */
struct showcase *showcase_open(const char *directory, struct error *err);
void showcase_close(struct showcase *showcase); // takes NULL

#endif
