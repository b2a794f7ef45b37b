/*
 * What was said, as it was written: entries with the budget of every token, for the chat view and
 * its timeline. Texts are well-formed UTF-8 as the engine gives them.
 */
#ifndef TUI_TRANSCRIPT_H
#define TUI_TRANSCRIPT_H

#include "base/text.h"
#include "core/event.h"
#include "core/reply.h"

enum entry_kind { ENTRY_USER, ENTRY_THOUGHT, ENTRY_ANSWER, ENTRY_NOTE };

struct entry_token {
	uint32_t offset; // where its text begins in the entry
	int8_t budget;   // index in elastic, -1 = another
	bool switched;   // the first one that another budget wrote
};

struct entry {
	enum entry_kind kind;
	struct text text;
	struct entry_token *tokens;
	size_t n_tokens, tokens_capacity;
	int steps;        // decode steps among the tokens
	uint64_t took_ns; // their computing time
	bool live;        // still being written
	bool folded;      // thoughts
	uint64_t version; // grows with every change
};

struct transcript {
	struct entry *entries;
	size_t n_entries, capacity;
	uint64_t version; // grows with every change
};

void transcript_free(struct transcript *transcript); // takes {0}
void transcript_clear(struct transcript *transcript);

/* to is initialised here; 0, or -1 without memory. */
int transcript_copy(struct transcript *to, const struct transcript *from);

/* A finished entry. NULL without memory. */
struct entry *transcript_add(struct transcript *transcript, enum entry_kind kind, const char *text,
							 size_t length);

/* A token of the running turn; reply has taken it already. budget = its index or -1. */
void transcript_token(struct transcript *transcript, const struct event *event,
					  const struct reply *reply, int budget);
void transcript_stop(struct transcript *transcript); // nothing is live any more

/* Forgets what follows the last user entry, and that entry too unless keep_user. */
void transcript_undo(struct transcript *transcript, bool keep_user);

#endif
