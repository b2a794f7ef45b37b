/*
 * What was said: a system text and a tree of messages. Every message knows its parent, so an edited
 * or retried turn is a sibling and nothing is lost; the active path runs from a root to `active`. A
 * request to the engine carries a copy of that path. Not thread-safe: it has one owner.
 */
#ifndef CORE_CONVERSATION_H
#define CORE_CONVERSATION_H

#include "base/error.h"
#include "core/chat.h"
#include "core/prompt.h"
#include <stdbool.h>

#define NO_MESSAGE (-1)

struct model;
struct id_list;

struct message {
	int parent; // index into messages, always smaller than its own; NO_MESSAGE = the first of a
				// path
	enum chat_role role;
	char *text;      // NUL-terminated, text_length bytes
	char *reasoning; // NULL = none
	size_t text_length, reasoning_length;
};

/* Starts with conversation_init. Owns everything in it. */
struct conversation {
	char *system; // NULL = none
	struct message *messages;
	int n_messages;
	size_t capacity;
	int active; // last message of the active path, NO_MESSAGE = nothing was said
	bool enable_thinking;
	bool truncate_history;
};

void conversation_init(struct conversation *conversation); // empty; thinking and truncation on
void conversation_free(struct conversation *conversation); // takes {0}

/* Copies the text; "" or NULL = none. */
int conversation_set_system(struct conversation *conversation, const char *text, struct error *err);

/* Appends a message after the active one and makes it active. Strings are copied; reasoning may be
 * {0}. Returns its index, or -1. */
int conversation_append(struct conversation *conversation, enum chat_role role,
						struct chat_string text, struct chat_string reasoning, struct error *err);

/* The indices from the root to `message`, in *path (free()); returns how many, or -1. */
int conversation_path(const struct conversation *conversation, int message, int **path,
					  struct error *err);

/* to = the system text, the options and the path to `message`, as a conversation without branches.
 * to is initialised here; on -1 it is empty. */
int conversation_copy_path(const struct conversation *from, int message, struct conversation *to,
						   struct error *err);

/* Makes another message (of another branch), or NO_MESSAGE, the active one. */
void conversation_select(struct conversation *conversation, int message);

/* Steps back before the last user message of the active path; its messages stay in the tree.
 * Returns the index of that user message (its text can be edited and sent again), or NO_MESSAGE. */
int conversation_undo(struct conversation *conversation);

/* Forgets all messages; system text and options stay. */
void conversation_clear(struct conversation *conversation);

/* The prompt of the active path. */
int conversation_render(const struct conversation *conversation, bool add_generation_prompt,
						struct prompt *out, struct error *err);

/* The ids that a model reads for it, appended: the prompt's, or without a tokenizer those that its
 * texts list, one behind the other. */
int conversation_encode(const struct conversation *conversation, const struct model *model,
						bool add_generation_prompt, struct id_list *out, struct error *err);

#endif
