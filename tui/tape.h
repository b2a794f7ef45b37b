/*
 * The ids of one turn as a sequence reads them: the prompt, then what was written, with who wrote
 * and who read each. Fed by events; the prompt's ids come from rendering the conversation again,
 * since events do not carry them. Budgets are numbered by talk_writer_index().
 */
#ifndef TUI_TAPE_H
#define TUI_TAPE_H

#include "core/conversation.h"
#include "core/event.h"
#include "core/model.h"

#define TAPE_TYPED (-1)  // one more typed budget than can be told apart (talk_writer_index)
#define TAPE_NOBODY (-2) // writer: the prompt; reader: not read yet, or not known

struct tape_token {
	int32_t id; // -1 = not known
	int8_t writer, reader;
	bool ends;        // </think>
	enum phase phase; // of written ones
	struct picked picked;
};

struct tape {
	struct tape_token *tokens;
	size_t n, capacity;
	size_t prompt; // of them, what the turn began with
	bool known;    // all ids are
	int8_t reader; // who reads now
};

void tape_free(struct tape *tape); // takes {0}
void tape_clear(struct tape *tape);

/* A turn begins: with the ids that the engine renders the conversation to; without a model none is
 * known. Readers of what is the same as before stay known. */
void tape_render(struct tape *tape, const struct conversation *conversation,
				 const struct model *model);

/* A turn was taken back: what is left is what the conversation as it is now has in common with the
 * tape; nothing of it was written in this turn. */
void tape_keep(struct tape *tape, const struct conversation *conversation,
			   const struct model *model);

/* Goes on from tokens [0, n): what follows is forgotten. */
void tape_cut(struct tape *tape, size_t n);

/* PREFILL, TOKEN and SWITCH of the tape's own sequence; budget: that the event names. */
void tape_event(struct tape *tape, const struct event *event, int budget);

/* The ids of tokens [0, n); false where one is not known. */
bool tape_ids(const struct tape *tape, size_t n, int32_t *out);

int tape_copy(struct tape *to, const struct tape *from); // to is initialised here; 0 or -1

#endif
