/* Inside `compare`: what was compared, and how it is shown. */
#ifndef CLI_COMPARE_H
#define CLI_COMPARE_H

#include "cli/command.h"
#include "inspect/answers.h"
#include "inspect/fidelity.h"

#define COMPARE_SIDES 3  // a table as wide as a terminal
#define COMPARE_WORST 10 // positions listed when nobody asks for another number

struct comparison {
	const char *labels[COMPARE_SIDES];   // as the user typed them
	struct model *models[COMPARE_SIDES]; // counted
	struct slice slices[COMPARE_SIDES];
	int n_sides;
	int32_t *ids;    // what all read
	int n, n_prompt; // n_prompt: of them the prompt; 0 = a text, not an answer
	struct fidelity_plan plan;
	struct fidelity fidelity;
	struct answers answers; // what each writes by itself; only of a prompt
	struct turn_settings settings;
	int worst; // positions to list
};

int compare_print_json(const struct comparison *c, const struct cli *cli, struct error *err);
void compare_print_csv(const struct comparison *c);
int compare_print_tables(const struct comparison *c, struct error *err);

/* --text-only: what each side writes to the prompt, with its own tokenizer. */
int compare_texts(const struct comparison *c, const struct cli *cli, struct error *err);

#endif
